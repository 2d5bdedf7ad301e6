// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// clusterSpec is a ClusterNetworkPolicySpec whose rules are read one by one: its definition says what becomes of a rule that an
// implementation doesn't understand, while the others stay in force.
type clusterSpec struct {
	Tier     string                                  `json:"tier"`
	Priority *int32                                  `json:"priority"`
	Subject  npav1alpha2.ClusterNetworkPolicySubject `json:"subject"`
	Ingress  []json.RawMessage                       `json:"ingress"`
	Egress   []json.RawMessage                       `json:"egress"`
}

// clusterRule is a rule of either direction.
type clusterRule struct {
	Name      string                                       `json:"name"`
	Action    npav1alpha2.ClusterNetworkPolicyRuleAction   `json:"action"`
	From      []npav1alpha2.ClusterNetworkPolicyEgressPeer `json:"from"`
	To        []npav1alpha2.ClusterNetworkPolicyEgressPeer `json:"to"`
	Protocols []npav1alpha2.ClusterNetworkPolicyProtocol   `json:"protocols"`
}

// decodeClusterNetworkPolicy reads the dialect policy.networking.k8s.io/v1alpha2. Its pods are those of the local cluster.
func decodeClusterNetworkPolicy(m *Model) bool {
	var spec clusterSpec
	if !m.unmarshal(&spec) {
		return m.salvageCluster()
	}
	if !m.clusterSubjects(&spec.Subject) {
		return false
	}
	m.clusterTier(spec.Tier, spec.Priority)
	m.dirs[Ingress] = clusterDirection(m, Ingress, spec.Ingress)
	m.dirs[Egress] = clusterDirection(m, Egress, spec.Egress)
	return true
}

func (m *Model) clusterTier(tier string, priority *int32) {
	if tier == "" {
		tier = "(none)"
	}
	m.setTier(tier, priority)
}

// salvageCluster finds the subjects of a broken policy, and closes the directions that it names.
func (m *Model) salvageCluster() bool {
	fields, ok := m.raw()
	if !ok {
		return false
	}
	var subject npav1alpha2.ClusterNetworkPolicySubject
	strict, err := kjson.UnmarshalStrict(fields["subject"], &subject)
	if err != nil || len(strict) > 0 || !m.clusterSubjects(&subject) {
		return false
	}
	m.salvageTier(fields)
	if m.tier == TierNamespace {
		m.tier = TierAdmin
	}
	for dir, name := range map[Direction]string{Ingress: "ingress", Egress: "egress"} {
		if _, present := fields[name]; present {
			m.dirs[dir] = &direction{isolates: true}
		}
	}
	return true
}

func (m *Model) clusterSubjects(s *npav1alpha2.ClusterNetworkPolicySubject) bool {
	if (s.Namespaces == nil) == (s.Pods == nil) {
		m.problem("spec.subject: needs either namespaces or pods")
		return false
	}
	pods, namespaces, field := (*metav1.LabelSelector)(nil), s.Namespaces, "spec.subject.namespaces"
	if s.Pods != nil {
		pods, namespaces, field = &s.Pods.PodSelector, &s.Pods.NamespaceSelector, "spec.subject.pods.namespaceSelector"
	}
	problems, warnings := len(m.problems), len(m.warnings)
	ok := m.setSubjects(pods, namespaces, nil)
	names := strings.NewReplacer("spec.podSelector", "spec.subject.pods.podSelector", "spec.namespaceSelector", field)
	for _, texts := range [][]string{m.problems[problems:], m.warnings[warnings:]} {
		for i := range texts {
			texts[i] = names.Replace(texts[i])
		}
	}
	return ok
}

// clusterDirection reads the rules of a direction. A policy without rules in it has no say.
func clusterDirection(m *Model, dir Direction, rules []json.RawMessage) *direction {
	if len(rules) == 0 {
		return nil
	}
	d := &direction{}
	for i, text := range rules {
		d.rules = append(d.rules, m.clusterRule(fmt.Sprintf("spec.%s[%d]", dir, i), dir, i, text))
	}
	return d
}

// clusterRule reads a rule. One that is not understood is closed as the API's definition wants it: an Accept is about nobody, and
// anything else denies everybody.
func (m *Model) clusterRule(field string, dir Direction, index int, text json.RawMessage) rule {
	var in clusterRule
	strict, err := kjson.UnmarshalStrict(text, &in)
	if err != nil {
		strict = append(strict, err)
	}
	r := rule{index: index, name: in.Name, anyPort: len(in.Protocols) == 0}
	switch in.Action {
	case npav1alpha2.ClusterNetworkPolicyRuleActionAccept:
		r.kind = RuleAllow
	case npav1alpha2.ClusterNetworkPolicyRuleActionDeny:
		r.kind = RuleDeny
	case npav1alpha2.ClusterNetworkPolicyRuleActionPass:
		r.kind = RulePass
	default:
		r.kind = RuleDeny
		strict = append(strict, fmt.Errorf("action %q is none of Accept, Deny and Pass", in.Action))
	}
	peers, list := in.From, "from"
	if dir == Egress {
		peers, list = in.To, "to"
	}
	if len(in.From) > 0 && len(in.To) > 0 || len(peers) == 0 {
		strict = append(strict, fmt.Errorf("needs %s, and only that", list))
	}
	if len(strict) > 0 {
		m.warnRule(field, &r, strict...)
		return closedRule(r)
	}
	broken := false
	for i := range in.Protocols {
		ports, err := clusterPorts(&in.Protocols[i])
		if err != nil {
			m.warnRule(fmt.Sprintf("%s.protocols[%d]", field, i), &r, err)
			broken = true
		}
		r.ports = append(r.ports, ports...)
	}
	if slices.ContainsFunc(r.ports, func(p port) bool { return p.name != "" }) && slices.ContainsFunc(peers, isOutside) {
		m.warnRule(field, &r, errors.New("networks, nodes and domainNames have no named ports"))
		broken = true
	}
	if broken {
		return closedRule(r)
	}
	for i := range peers {
		if err := m.clusterPeer(fmt.Sprintf("%s.%s[%d]", field, list, i), dir, &r, &peers[i]); err != nil {
			m.warnRule(fmt.Sprintf("%s.%s[%d]", field, list, i), &r, err)
			broken = true
		}
	}
	if broken {
		return closedPeers(r)
	}
	return r
}

func isOutside(p npav1alpha2.ClusterNetworkPolicyEgressPeer) bool {
	return p.Namespaces == nil && p.Pods == nil
}

// warnRule says why a rule is closed, and what that means.
func (m *Model) warnRule(field string, r *rule, errs ...error) {
	effect := "the rule denies everybody"
	if r.kind == RuleAllow {
		effect = "the rule accepts nobody"
	}
	for _, err := range errs {
		m.warn(fmt.Sprintf("%s: %v; %s", field, err, effect))
	}
}

// closedRule is what a rule becomes of which not even the ports are known.
func closedRule(r rule) rule {
	r.anyPort, r.ports = true, nil
	return closedPeers(r)
}

// closedPeers is what a rule becomes of which nobody knows whom it is about.
func closedPeers(r rule) rule {
	r.kind, r.peers, r.outside = r.kind.closing(), nil, false
	r.anyPeer = r.kind == RuleDeny
	return r
}

// clusterPeer adds a peer to a rule.
func (m *Model) clusterPeer(field string, dir Direction, r *rule, in *npav1alpha2.ClusterNetworkPolicyEgressPeer) error {
	given := 0
	for _, is := range []bool{in.Namespaces != nil, in.Pods != nil, in.Nodes != nil, len(in.Networks) > 0, len(in.DomainNames) > 0} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return fmt.Errorf("has %d kinds of peers that are known, not one", given)
	case in.Namespaces != nil:
		return m.clusterPods(field, r, nil, in.Namespaces)
	case in.Pods != nil:
		return m.clusterPods(field+".pods", r, &in.Pods.PodSelector, &in.Pods.NamespaceSelector)
	case dir == Ingress:
		return errors.New("peers of ingress are namespaces or pods")
	case len(in.Networks) > 0:
		return clusterNetworks(r, in.Networks)
	case in.Nodes != nil:
		return clusterNodes(r, in.Nodes)
	}
	return errors.New("domainNames can't be enforced yet")
}

func (m *Model) clusterPods(field string, r *rule, pods, namespaces *metav1.LabelSelector) error {
	if _, err := compileSelector(pods); err != nil {
		return fmt.Errorf("podSelector: %w", err)
	}
	s, err := compileSelector(namespaces)
	if err != nil {
		return fmt.Errorf("namespaceSelector: %w", err)
	}
	p := peer{pods: &podSelector{local: true, namespaces: s}}
	if m.podPeers(field+".podSelector", r.kind, pods, &p) {
		r.peers = append(r.peers, p)
	}
	return nil
}

// clusterNetworks adds ranges of addresses. They mean whoever has an address in them.
func clusterNetworks(r *rule, in []npav1alpha2.CIDR) error {
	for i, text := range in {
		p, err := parseCIDR(string(text))
		if err != nil {
			return fmt.Errorf("networks[%d]: %w", i, err)
		}
		r.peers = append(r.peers, peer{cidr: p})
	}
	return nil
}

// clusterNodes adds the nodes of the local cluster that a selector chooses.
func clusterNodes(r *rule, in *metav1.LabelSelector) error {
	s, err := compileSelector(in)
	if err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	r.peers = append(r.peers, peer{nodes: &nodeSelector{s}})
	return nil
}

// clusterPorts reads an element of protocols.
func clusterPorts(in *npav1alpha2.ClusterNetworkPolicyProtocol) ([]port, error) {
	type one struct {
		proto uint8
		port  *npav1alpha2.Port
	}
	var given []one
	if in.TCP != nil {
		given = append(given, one{protoTCP, in.TCP.DestinationPort})
	}
	if in.UDP != nil {
		given = append(given, one{protoUDP, in.UDP.DestinationPort})
	}
	if in.SCTP != nil {
		given = append(given, one{protoSCTP, in.SCTP.DestinationPort})
	}
	name := in.DestinationNamedPort
	switch {
	case name != "" && len(given) == 0:
		var out []port
		for _, proto := range []uint8{protoTCP, protoUDP, protoSCTP} {
			out = append(out, port{proto: proto, name: name + "/" + protocolName(proto)})
		}
		return out, nil
	case name != "" || len(given) != 1:
		return nil, errors.New("needs exactly one of tcp, udp, sctp and destinationNamedPort")
	}
	p, proto := given[0].port, given[0].proto
	switch {
	case p == nil:
		return []port{{proto: proto}}, nil
	case (p.Range != nil) == (p.Number != 0):
		return nil, errors.New("destinationPort needs either number or range")
	case p.Range != nil:
		out, err := numericPort(proto, int64(p.Range.Start), &p.Range.End)
		return []port{out}, err
	}
	out, err := numericPort(proto, int64(p.Number), nil)
	return []port{out}, err
}
