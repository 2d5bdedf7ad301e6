// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// decodeNetworkPolicy reads the dialect networking.k8s.io/v1. Its peers are pods of the local cluster: it knows of no
// other.
func decodeNetworkPolicy(m *Model) bool {
	var spec networkingv1.NetworkPolicySpec
	if !m.unmarshal(&spec) {
		return m.salvage()
	}
	if !m.setSubjects(&spec.PodSelector, nil, nil) {
		return false
	}
	ingress, egress := networkPolicyTypes(m, &spec)
	if ingress {
		d := &direction{isolates: true}
		for i, r := range spec.Ingress {
			d.rules = append(d.rules, networkRule(m, fmt.Sprintf("spec.ingress[%d]", i), "from", i, r.From, r.Ports))
		}
		m.dirs[Ingress] = d
	}
	if egress {
		d := &direction{isolates: true}
		for i, r := range spec.Egress {
			d.rules = append(d.rules, networkRule(m, fmt.Sprintf("spec.egress[%d]", i), "to", i, r.To, r.Ports))
		}
		m.dirs[Egress] = d
	}
	return true
}

// networkPolicyTypes says which directions the policy isolates. Without policyTypes: ingress, and egress if it has rules.
func networkPolicyTypes(m *Model, spec *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(spec.PolicyTypes) == 0 {
		return true, len(spec.Egress) > 0
	}
	for i, t := range spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			m.problem(fmt.Sprintf("spec.policyTypes[%d]: %q is neither Ingress nor Egress", i, t))
			return true, true
		}
	}
	return slices.Contains(spec.PolicyTypes, networkingv1.PolicyTypeIngress),
		slices.Contains(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

func networkRule(m *Model, field, list string, index int,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) rule {
	r := rule{kind: RuleAllow, index: index, anyPeer: len(peers) == 0, anyPort: len(ports) == 0}
	for i := range peers {
		if p, ok := networkPeer(m, fmt.Sprintf("%s.%s[%d]", field, list, i), &peers[i]); ok {
			r.peers = append(r.peers, p)
		}
	}
	for i := range ports {
		if p, ok := networkPort(m, fmt.Sprintf("%s.ports[%d]", field, i), &ports[i]); ok {
			r.ports = append(r.ports, p)
		}
	}
	return r
}

func networkPeer(m *Model, field string, p *networkingv1.NetworkPolicyPeer) (peer, bool) {
	if p.IPBlock != nil {
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			m.problem(field + ": ipBlock can't be combined with selectors")
			return peer{}, false
		}
		return m.cidr(field+".ipBlock.cidr", p.IPBlock.CIDR, p.IPBlock.Except)
	}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		m.problem(field + ": has none of podSelector, namespaceSelector and ipBlock; it matches nothing")
		return peer{}, false
	}
	out := &podSelector{local: true}
	is := peer{pods: out}
	ok1 := m.podPeers(field+".podSelector", RuleAllow, p.PodSelector, &is)
	var ok2 bool
	out.namespaces, ok2 = m.selector(field+".namespaceSelector", p.NamespaceSelector)
	if p.NamespaceSelector == nil {
		out.namespace = m.rec.Namespace
	}
	return is, ok1 && ok2
}

func networkPort(m *Model, field string, p *networkingv1.NetworkPolicyPort) (port, bool) {
	name := ""
	if p.Protocol != nil {
		name = string(*p.Protocol)
	}
	proto, err := parseProtocol(name)
	if err != nil {
		m.problem(fmt.Sprintf("%s.protocol: %v", field, err))
		return port{}, false
	}
	switch {
	case p.Port == nil && p.EndPort == nil:
		return port{proto: proto}, true
	case p.Port == nil:
		m.problem(field + ": endPort needs port")
		return port{}, false
	case p.Port.Type == intstr.String:
		if p.EndPort != nil {
			m.problem(field + ": endPort needs a numeric port")
			return port{}, false
		}
		return m.namedPort(field+".port", proto, p.Port.StrVal)
	}
	out, err := numericPort(proto, int64(p.Port.IntVal), p.EndPort)
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return port{}, false
	}
	return out, true
}

func (m *Model) namedPort(field string, proto uint8, name string) (port, bool) {
	if name == "" {
		m.problem(field + ": the name of the port is empty")
		return port{}, false
	}
	return port{proto: proto, name: name + "/" + protocolName(proto)}, true
}
