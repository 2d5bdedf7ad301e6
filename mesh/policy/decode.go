// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// dialects read the kinds of policies into models; false means that not even the subjects could be read. A new one is a line
// here, a file of its own, and a line in v1alpha1.PolicyKinds.
var dialects = map[string]func(*Model) bool{
	KindNetworkPolicy:            decodeNetworkPolicy,
	KindMeshNetworkPolicy:        decodeMeshPolicy,
	KindClusterMeshNetworkPolicy: decodeMeshPolicy,
	KindClusterNetworkPolicy:     decodeClusterNetworkPolicy,

	KindCiliumNetworkPolicy:            decodeCilium,
	KindCiliumClusterwideNetworkPolicy: decodeCilium,
}

// Parse understands a policy, as far as it can. It never fails: what is wrong is in Problems, and has closed the policy
// rather than opened anything (see Model.close). A policy with subjects that can't be read applies to nobody.
func Parse(rec *record.Policy) *Model {
	m := &Model{key: Key(rec), rec: rec}
	decode, known := dialects[rec.PolicyKind]
	if !known {
		m.problem(fmt.Sprintf("kind %q is not known; known are %s", rec.PolicyKind, strings.Join(slices.Sorted(maps.Keys(dialects)), ", ")))
	}
	if !known || !decode(m) {
		m.nobody, m.dirs = true, [2]*direction{}
	}
	for _, one := range m.all() {
		one.setMode(rec.Mode)
		one.finish()
	}
	if why := rec.Mode.Problem; why != "" {
		m.warn(why)
	}
	return m
}

// finish closes what was not understood, and names the rules.
func (m *Model) finish() {
	m.splitPasses()
	if len(m.problems) > 0 {
		m.close()
	}
	if m.widened {
		m.dropAllows()
	}
	m.describe()
}

// unmarshal reads a spec. Field names are compared exactly, unknown and doubled fields are problems: a restriction that
// this version does not know must not be dropped in silence. False means that nothing could be read.
func (m *Model) unmarshal(into any) bool {
	strict, err := kjson.UnmarshalStrict(m.rec.Spec, into)
	for _, e := range strict {
		m.problem("spec: " + e.Error())
	}
	if err != nil {
		m.problem("spec is not readable: " + err.Error())
		return false
	}
	return true
}

// raw reads the outermost fields of a spec that could not be read as a whole, to learn which pods it is about.
func (m *Model) raw() (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(m.rec.Spec, &fields); err != nil || fields == nil {
		return nil, false
	}
	return fields, true
}

// salvage finds the subjects of a broken policy, and closes the directions that it names.
func (m *Model) salvage() bool {
	fields, ok := m.raw()
	if !ok {
		return false
	}
	read := func(field string) (*metav1.LabelSelector, bool) {
		text, present := fields[field]
		if !present {
			return nil, true
		}
		var s *metav1.LabelSelector
		strict, err := kjson.UnmarshalStrict(text, &s)
		return s, err == nil && len(strict) == 0
	}
	pods, ok1 := read("podSelector")
	namespaces, ok2 := read("namespaceSelector")
	clusters, ok3 := read("clusterSelector")
	if !ok1 || !ok2 || !ok3 || !m.setSubjects(pods, namespaces, clusters) {
		return false
	}
	var mode string
	if json.Unmarshal(fields["mode"], &mode) == nil {
		m.audit = m.rec.PolicyKind != KindNetworkPolicy && mode == "Audit"
	}
	if m.rec.PolicyKind == KindClusterMeshNetworkPolicy {
		m.salvageTier(fields)
	}
	_, ingress := fields["ingress"]
	_, egress := fields["egress"]
	if m.rec.PolicyKind == KindNetworkPolicy {
		ingress, egress = salvageTypes(fields, egress)
	}
	if ingress {
		m.dirs[Ingress] = &direction{isolates: true}
	}
	if egress {
		m.dirs[Egress] = &direction{isolates: true}
	}
	return true
}

// salvageTypes finds the directions of a broken NetworkPolicy; both if they can't be read.
func salvageTypes(fields map[string]json.RawMessage, hasEgress bool) (ingress, egress bool) {
	text, present := fields["policyTypes"]
	if !present {
		return true, hasEgress
	}
	var types []string
	if json.Unmarshal(text, &types) != nil {
		return true, true
	}
	for _, t := range types {
		switch t {
		case "Ingress":
			ingress = true
		case "Egress":
			egress = true
		default:
			return true, true
		}
	}
	if len(types) == 0 {
		return true, hasEgress
	}
	return ingress, egress
}

// setSubjects compiles the selectors of the pods that a policy is about. One that asks for labels which identities leave out
// selects all pods that may be meant: those that are would stay open else. It isolates them as it says, its deny rules apply
// to them, and its allow rules don't, because they would open pods that aren't meant.
func (m *Model) setSubjects(pods, namespaces, clusters *metav1.LabelSelector) bool {
	kind, _ := v1alpha1.PolicyKindNamed(m.rec.PolicyKind)
	if kind.Namespaced && m.rec.Namespace == "" {
		m.problem("a " + m.rec.PolicyKind + " needs a namespace")
		return false
	}
	m.subjects = podSelector{local: true}
	if kind.Namespaced {
		m.subjects.namespace = m.rec.Namespace
	}
	var ok [3]bool
	var exact *selector
	exact, ok[0] = m.selector("spec.podSelector", pods)
	m.subjects.pods, m.widened = m.meant("spec.podSelector", exact, "the policy selects every pod that may be meant, and its allow rules apply to none of them")
	m.subjects.namespaces, ok[1] = m.selector("spec.namespaceSelector", namespaces)
	m.clusters, ok[2] = m.selector("spec.clusterSelector", clusters)
	return ok[0] && ok[1] && ok[2]
}

// podPeers adds the selector of a peer's pods to what it means. Of one that asks for labels which identities leave out it is not
// known whom it means: an allow rule means nobody by it, which is false here, and a deny rule all who may be meant. A pass is
// unclear for all these.
func (m *Model) podPeers(field string, kind RuleKind, s *metav1.LabelSelector, p *peer) bool {
	exact, ok := m.selector(field, s)
	what := "the rule denies everybody who may be meant"
	if kind == RuleAllow {
		what = "the rule allows nobody by it"
	} else if kind == RulePass && m.tier == TierBaseline {
		what = "the rule passes nobody by it"
	}
	var widened bool
	p.pods.pods, widened = m.meant(field, exact, what)
	p.unclear = widened && kind == RulePass
	return ok && !(widened && kind == RuleAllow)
}

// meant gives the selector of all pods that may be meant, and whether that is another one: then it warns, and says what is done.
func (m *Model) meant(field string, s *selector, done string) (out *selector, widened bool) {
	out, texts := s.widened()
	for _, why := range texts {
		m.warn(field + ": " + why + "; " + done)
	}
	return out, len(texts) > 0
}

// selector compiles one, and says which field it is if it can't.
func (m *Model) selector(field string, s *metav1.LabelSelector) (*selector, bool) {
	out, err := compileSelector(s)
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return nil, false
	}
	return out, true
}

// cidr reads a CIDR and what is taken out of it.
func (m *Model) cidr(field, text string, except []string) (peer, bool) {
	prefix, err := parseCIDR(text)
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return peer{}, false
	}
	out, ok := peer{cidr: prefix}, true
	for i, e := range except {
		sub, err := parseCIDR(e)
		if err == nil && (sub.Bits() <= prefix.Bits() || !prefix.Contains(sub.Addr())) {
			err = fmt.Errorf("%s is not a part of %s", sub, prefix)
		}
		if err != nil {
			m.problem(fmt.Sprintf("%s.except[%d]: %v", strings.TrimSuffix(field, ".cidr"), i, err))
			ok = false
			continue
		}
		out.except = append(out.except, sub)
	}
	return out, ok
}

func parseCIDR(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR such as 192.0.2.0/24", text)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address in IPv6 form; write it as IPv4", text)
	}
	return p.Masked(), nil
}
