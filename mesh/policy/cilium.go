// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
)

// The dialect of cilium.io/v2 (docs/reference/cilium-policies.md, docs/decisions/0013). A policy has one spec or several, each
// with pods of its own that it is about; each becomes a model. Specs are read rule by rule, and a rule that has something in it
// that isn't enforced is closed alone: an allow is about nobody then, and a deny about all who may be meant.

// ciliumPolicy is what a record holds: the object's fields beside its metadata.
type ciliumPolicy struct {
	Spec  json.RawMessage   `json:"spec"`
	Specs []json.RawMessage `json:"specs"`
}

type ciliumSpec struct {
	EndpointSelector  *metav1.LabelSelector `json:"endpointSelector"`
	NodeSelector      json.RawMessage       `json:"nodeSelector"`
	Ingress           []json.RawMessage     `json:"ingress"`
	IngressDeny       []json.RawMessage     `json:"ingressDeny"`
	Egress            []json.RawMessage     `json:"egress"`
	EgressDeny        []json.RawMessage     `json:"egressDeny"`
	EnableDefaultDeny ciliumDefaultDeny     `json:"enableDefaultDeny"`
	// These decide nothing.
	Labels      json.RawMessage `json:"labels"`
	Description string          `json:"description"`
	Log         json.RawMessage `json:"log"`
}

type ciliumDefaultDeny struct {
	Ingress *bool `json:"ingress"`
	Egress  *bool `json:"egress"`
}

// decodeCilium reads CiliumNetworkPolicies and CiliumClusterwideNetworkPolicies.
func decodeCilium(m *Model) bool {
	if m.rec.PolicyKind == KindCiliumNetworkPolicy && m.rec.Namespace == "" {
		m.problem("a " + m.rec.PolicyKind + " needs a namespace")
		return false
	}
	var in ciliumPolicy
	if !m.unmarshal(&in) {
		return false
	}
	models := []*Model{}
	add := func(at string, text json.RawMessage) {
		one := m
		if len(models) > 0 {
			one = m.another(at)
		}
		one.in = at
		models = append(models, one)
		if !one.ciliumSpec(at, text) {
			one.nobody, one.dirs = true, [2]*direction{}
		}
	}
	if given(in.Spec) {
		add("spec", in.Spec)
	}
	for i, text := range in.Specs {
		add(fmt.Sprintf("specs[%d]", i), text)
	}
	if len(models) == 0 {
		m.problem("spec: is missing, and specs, too")
		return false
	}
	return !m.nobody
}

// given says whether a field is there.
func given(text json.RawMessage) bool { return len(text) > 0 && string(text) != "null" }

// ciliumSpec reads a spec; false: not even its subjects.
func (m *Model) ciliumSpec(field string, text json.RawMessage) bool {
	var in ciliumSpec
	strict, err := kjson.UnmarshalStrict(text, &in)
	for _, e := range strict {
		m.problem(field + ": " + e.Error())
	}
	if err != nil {
		m.problem(field + " is not readable: " + err.Error())
		return m.salvageCilium(field, text)
	}
	switch {
	case given(in.NodeSelector):
		m.problem(field + ".nodeSelector: policies of hosts are not enforced; nodes are no subjects")
		return false
	case in.EndpointSelector == nil:
		m.problem(field + ".endpointSelector: is missing")
		return false
	case !m.ciliumSubjects(field+".endpointSelector", in.EndpointSelector):
		return false
	}
	m.dirs[Ingress] = m.ciliumDirection(field, Ingress, in.Ingress, in.IngressDeny, in.EnableDefaultDeny.Ingress)
	m.dirs[Egress] = m.ciliumDirection(field, Egress, in.Egress, in.EgressDeny, in.EnableDefaultDeny.Egress)
	return true
}

// salvageCilium finds the subjects of a broken spec, and closes the directions that it names.
func (m *Model) salvageCilium(field string, text json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return false
	}
	var subjects *metav1.LabelSelector
	strict, err := kjson.UnmarshalStrict(fields["endpointSelector"], &subjects)
	if err != nil || len(strict) > 0 || subjects == nil || !m.ciliumSubjects(field+".endpointSelector", subjects) {
		return false
	}
	for dir, names := range map[Direction][2]string{Ingress: {"ingress", "ingressDeny"}, Egress: {"egress", "egressDeny"}} {
		_, allows := fields[names[0]]
		_, denies := fields[names[1]]
		if _, broken := fields["enableDefaultDeny"]; broken || allows || denies {
			m.dirs[dir] = &direction{isolates: true, ownNode: dir == Egress}
		}
	}
	return true
}

// ciliumSubjects compiles the selector of the pods that a spec is about.
func (m *Model) ciliumSubjects(field string, in *metav1.LabelSelector) bool {
	s, err := m.endpoints(field, in, true)
	if err == nil && len(s.reserved) > 0 {
		err = errors.New("selects no pods: endpoints of reserved identities are none here")
	}
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return false
	}
	pods, err := compileSelector(&s.pods)
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return false
	}
	if m.rec.Namespace != "" && s.namespace != "" && s.namespace != m.rec.Namespace {
		m.problem(fmt.Sprintf("%s: selects pods of namespace %s, and a %s is about those of its own only", field, s.namespace, m.rec.PolicyKind))
		return false
	}
	m.subjects = podSelector{local: true, namespace: cmp.Or(m.rec.Namespace, s.namespace)}
	if m.subjects.namespaces, err = compileSelector(&s.namespaces); err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return false
	}
	m.subjects.pods, m.widened = m.meant(field, pods, "the policy selects every pod that may be meant, and its allow rules apply to none of them")
	return true
}

// ciliumDirection reads the rules of a direction. Rules close it unless enableDefaultDeny says otherwise; what a pod opens to its
// own node is no exception.
func (m *Model) ciliumDirection(field string, dir Direction, allow, deny []json.RawMessage, defaultDeny *bool) *direction {
	d := &direction{isolates: len(allow)+len(deny) > 0, ownNode: dir == Egress}
	if defaultDeny != nil {
		d.isolates = *defaultDeny
	}
	for i, text := range deny {
		d.rules = append(d.rules, m.ciliumRule(fmt.Sprintf("%s.%sDeny[%d]", field, dir, i), dir, rule{kind: RuleDeny, index: i}, text))
	}
	for i, text := range allow {
		d.rules = append(d.rules, m.ciliumRule(fmt.Sprintf("%s.%s[%d]", field, dir, i), dir, rule{kind: RuleAllow, index: i}, text))
	}
	if !d.isolates && len(d.rules) == 0 {
		return nil
	}
	return d
}

// closeCilium says why something in a rule is closed, and what that means.
func (m *Model) closeCilium(field string, r *rule, err error) {
	m.warn(fmt.Sprintf("%s: %v; %s", field, err, closedEffect(r.kind)))
}

func closedEffect(kind RuleKind) string {
	if kind == RuleAllow {
		return "it allows nobody"
	}
	return "it denies everybody who may be meant"
}

// ciliumRule reads a rule, of which kind and index are known.
func (m *Model) ciliumRule(field string, dir Direction, r rule, text json.RawMessage) rule {
	var in ciliumRule
	strict, err := kjson.UnmarshalStrict(text, &in)
	if err != nil {
		strict = append(strict, err)
	}
	if err := in.wrongDirection(dir); err != nil {
		strict = append(strict, err)
	}
	if len(strict) > 0 {
		for _, err := range strict {
			m.closeCilium(field, &r, err)
		}
		return closedRule(r)
	}
	if name, text := in.requires(dir); given(text) {
		// It limits what all rules for these pods allow, those of other policies, too.
		r.kind = RuleDeny
		m.closeCilium(field+"."+name, &r, errors.New("is not enforced, and limits what others allow"))
		return closedRule(r)
	}
	if !m.ciliumPorts(field, &r, &in) {
		return closedRule(r)
	}
	if mode := in.Authentication.Mode; mode != "" && mode != "disabled" {
		m.closeCilium(field+".authentication", &r, errors.New("is not enforced"))
		return closedPeers(r)
	}
	return m.ciliumPeers(field, dir, r, &in)
}

// ciliumPeers adds whom a rule is about. Without any field about that it is everybody on the rule's ports, and without those,
// nobody: such a rule only closes the direction.
func (m *Model) ciliumPeers(field string, dir Direction, r rule, in *ciliumRule) rule {
	lists, err := in.peers(dir)
	if err != nil {
		m.closeCilium(field, &r, err)
		return closedPeers(r)
	}
	if len(lists) == 0 {
		r.anyPeer = !r.anyPort
		return r
	}
	if slices.ContainsFunc(lists, func(l ciliumList) bool { return l.empty }) {
		return r // nobody
	}
	list := lists[0]
	if err := list.read(m, field+"."+list.name, dir, &r); err != nil {
		m.closeCilium(field+"."+list.name, &r, err)
		return closedPeers(r)
	}
	if r.anyPeer {
		r.peers = nil
	}
	return r
}
