// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// decodeMeshPolicy reads MeshNetworkPolicy and ClusterMeshNetworkPolicy, which differ only in their subjects.
func decodeMeshPolicy(m *Model) bool {
	var spec v1alpha1.ClusterMeshNetworkPolicySpec
	if m.rec.PolicyKind == KindMeshNetworkPolicy {
		if !m.unmarshal(&spec.MeshNetworkPolicySpec) {
			return m.salvage()
		}
	} else if !m.unmarshal(&spec) {
		return m.salvage()
	}
	if !m.setSubjects(&spec.PodSelector, spec.NamespaceSelector, spec.ClusterSelector) {
		return false
	}
	m.setTier(string(spec.Tier), spec.Priority)
	switch spec.Mode {
	case v1alpha1.PolicyEnforce, "":
	case v1alpha1.PolicyAudit:
		m.audit = true
	default:
		m.problem(fmt.Sprintf("spec.mode: %q is neither Enforce nor Audit", spec.Mode))
	}
	if spec.Ingress == nil && spec.Egress == nil {
		m.problem("spec: needs ingress or egress")
	}
	m.dirs[Ingress] = meshDirection(m, "spec.ingress", spec.Ingress)
	m.dirs[Egress] = meshDirection(m, "spec.egress", spec.Egress)
	return true
}

func meshDirection(m *Model, field string, in *v1alpha1.MeshPolicyDirection) *direction {
	if in == nil {
		return nil
	}
	d := &direction{isolates: true}
	switch in.DefaultAction {
	case "Deny", "":
	case "Allow":
		d.isolates = false
	default:
		m.problem(fmt.Sprintf("%s.defaultAction: %q is neither Allow nor Deny", field, in.DefaultAction))
	}
	for i := range in.Deny {
		d.rules = append(d.rules, meshRule(m, fmt.Sprintf("%s.deny[%d]", field, i), RuleDeny, i, &in.Deny[i]))
	}
	for i := range in.Allow {
		d.rules = append(d.rules, meshRule(m, fmt.Sprintf("%s.allow[%d]", field, i), RuleAllow, i, &in.Allow[i]))
	}
	if len(in.Pass) > 0 && m.tier == TierNamespace {
		m.problem(field + ".pass: is for a " + KindClusterMeshNetworkPolicy + " with a tier")
		return d
	}
	for i := range in.Pass {
		d.rules = append(d.rules, meshRule(m, fmt.Sprintf("%s.pass[%d]", field, i), RulePass, i, &in.Pass[i]))
	}
	return d
}

func meshRule(m *Model, field string, kind RuleKind, index int, in *v1alpha1.MeshPolicyRule) rule {
	r := rule{kind: kind, index: index, anyPeer: len(in.Peers) == 0, anyPort: len(in.Ports)+len(in.ICMP) == 0}
	broken := false
	for i := range in.Peers {
		p, ok := meshPeer(m, fmt.Sprintf("%s.peers[%d]", field, i), kind, &in.Peers[i])
		if ok {
			r.peers = append(r.peers, p...)
		}
		broken = broken || !ok
	}
	for i := range in.Ports {
		p, ok := meshPort(m, fmt.Sprintf("%s.ports[%d]", field, i), &in.Ports[i])
		if ok {
			r.ports = append(r.ports, p)
		}
		broken = broken || !ok
	}
	for i := range in.ICMP {
		p, err := icmpPorts(&in.ICMP[i])
		if err != nil {
			m.problem(fmt.Sprintf("%s.icmp[%d]%v", field, i, err))
			broken = true
		}
		r.ports = append(r.ports, p...)
	}
	if broken && kind == RuleDeny {
		// What it meant to keep out is not known, so nothing comes in.
		return rule{kind: kind, index: index, anyPeer: true, anyPort: true}
	}
	return r
}

func meshPeer(m *Model, field string, kind RuleKind, in *v1alpha1.MeshPolicyPeer) ([]peer, bool) {
	pods := in.PodSelector != nil || in.NamespaceSelector != nil || in.ClusterSelector != nil || len(in.ServiceAccounts) > 0
	given := 0
	for _, is := range []bool{pods, in.CIDR != "", in.NodeSelector != nil, len(in.Services) > 0, len(in.Entities) > 0} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		m.problem(field + ": only one of cidr, nodeSelector, services, entities and selectors of pods can be given")
		return nil, false
	case len(in.Except) > 0 && in.CIDR == "":
		m.problem(field + ": except needs cidr")
		return nil, false
	case in.CIDR != "":
		p, ok := m.cidr(field+".cidr", in.CIDR, in.Except)
		return []peer{p}, ok
	case in.NodeSelector != nil:
		s, ok := m.selector(field+".nodeSelector", in.NodeSelector)
		return []peer{{nodes: &nodeSelector{s}}}, ok
	case len(in.Services) > 0:
		return m.services(field+".services", in.Services)
	case len(in.Entities) > 0:
		return m.entities(field+".entities", in.Entities)
	case !pods:
		m.problem(field + ": has none of podSelector, namespaceSelector, clusterSelector, serviceAccounts, nodeSelector, services, entities and cidr; it matches nothing")
		return nil, false
	}
	out := &podSelector{local: in.ClusterSelector == nil}
	is := peer{pods: out}
	var ok [3]bool
	ok[0] = m.podPeers(field+".podSelector", kind, in.PodSelector, &is)
	out.namespaces, ok[1] = m.selector(field+".namespaceSelector", in.NamespaceSelector)
	out.clusters, ok[2] = m.selector(field+".clusterSelector", in.ClusterSelector)
	if in.NamespaceSelector == nil {
		out.namespace = m.rec.Namespace // none for cluster-scoped policies: all namespaces
	}
	out.accounts = slices.Compact(slices.Sorted(slices.Values(in.ServiceAccounts)))
	return []peer{is}, ok[0] && ok[1] && ok[2]
}

func (m *Model) services(field string, in []v1alpha1.MeshPolicyService) (out []peer, ok bool) {
	for i, s := range in {
		name := ServiceName{cmp.Or(s.Namespace, m.rec.Namespace), s.Name}
		switch {
		case name.Name == "":
			m.problem(fmt.Sprintf("%s[%d].name: is missing", field, i))
			return nil, false
		case name.Namespace == "":
			m.problem(fmt.Sprintf("%s[%d].namespace: is missing, and the policy has none", field, i))
			return nil, false
		}
		out = append(out, peer{service: name})
	}
	return out, true
}

func (m *Model) entities(field string, in []v1alpha1.PolicyEntity) ([]peer, bool) {
	var out []peer
	for i, e := range in {
		id, known := map[v1alpha1.PolicyEntity]uint32{v1alpha1.PolicyEntityWorld: identity.World, v1alpha1.PolicyEntityNodes: identity.RemoteNode}[e]
		if !known {
			m.problem(fmt.Sprintf("%s[%d]: %q is neither World nor Nodes", field, i, e))
			return nil, false
		}
		out = append(out, peer{entity: id})
	}
	return out, true
}

func meshPort(m *Model, field string, in *v1alpha1.MeshPolicyPort) (port, bool) {
	proto, err := parseProtocol(in.Protocol)
	if err != nil {
		m.problem(fmt.Sprintf("%s.protocol: %v", field, err))
		return port{}, false
	}
	switch {
	case in.Name != "" && (in.Port != nil || in.EndPort != nil):
		m.problem(field + ": give port or name, not both")
		return port{}, false
	case in.Name != "":
		return m.namedPort(field+".name", proto, in.Name)
	case in.Port == nil && in.EndPort != nil:
		m.problem(field + ": endPort needs port")
		return port{}, false
	case in.Port == nil:
		return port{proto: proto}, true
	}
	out, err := numericPort(proto, int64(*in.Port), in.EndPort)
	if err != nil {
		m.problem(fmt.Sprintf("%s: %v", field, err))
		return port{}, false
	}
	return out, true
}
