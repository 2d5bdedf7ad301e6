// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

func (p oraclePolicy) tier() string {
	switch {
	case p.cluster != nil:
		return string(p.cluster.Tier)
	case p.mesh != nil:
		return string(p.mesh.Tier)
	}
	return ""
}

func (p oraclePolicy) priority() int32 {
	if p.cluster != nil {
		return p.cluster.Priority
	}
	return *p.mesh.Priority
}

func (p oraclePolicy) audit() bool { return p.mesh != nil && p.mesh.Mode == v1alpha1.PolicyAudit }

// ordered is the action of the first rule in a tier that matches; empty if none does, or it passes.
func (o *oracle) ordered(c connection, audit bool, tier string) string {
	var policies []oraclePolicy
	for _, p := range o.policies {
		if p.tier() == tier && (audit || !p.audit()) {
			policies = append(policies, p)
		}
	}
	slices.SortFunc(policies, func(a, b oraclePolicy) int {
		return cmp.Or(cmp.Compare(a.priority(), b.priority()), cmp.Compare(a.name, b.name))
	})
	for _, p := range policies {
		ask := func() string { return o.askTiered(p.mesh, c) }
		if p.cluster != nil {
			ask = func() string { return o.askCluster(p.cluster, c) }
		}
		action := ask()
		switch action {
		case "Pass":
			return ""
		case "":
			continue
		}
		return action
	}
	return ""
}

// ruling is what a rule does. A pass in Admin that only may mean a connection denies it, for the tiers may decide otherwise.
// Anything else that opens needs to be sure.
func ruling(action, tier string, sure, may bool) string {
	switch {
	case action == "Deny" && may:
		return "Deny"
	case action != "Deny" && sure:
		return action
	case action == "Pass" && may && tier == "Admin":
		return "Deny"
	}
	return ""
}

// askTiered asks a policy of ours in a tier.
func (o *oracle) askTiered(spec *v1alpha1.ClusterMeshNetworkPolicySpec, c connection) string {
	d, selected := o.meshDirection(spec, c)
	if d == nil {
		return ""
	}
	for _, list := range []struct {
		rules  []v1alpha1.MeshPolicyRule
		action string
	}{{d.Deny, "Deny"}, {d.Allow, "Accept"}, {d.Pass, "Pass"}} {
		for _, r := range list.rules {
			if action := ruling(list.action, string(spec.Tier), selected == yes && o.surely("", r, c), o.maybe("", r, c)); action != "" {
				return action
			}
		}
	}
	if d.DefaultAction != "Allow" && !c.peer.own {
		return "Deny"
	}
	return ""
}

func (o *oracle) askCluster(spec *npav1alpha2.ClusterNetworkPolicySpec, c connection) string {
	selected := yes
	switch s := spec.Subject; {
	case s.Namespaces != nil:
		selected = truthOf(has(s.Namespaces, c.subject.namespaceLabels))
	case s.Pods != nil:
		selected = o.isNamespaced(s.Pods, c.subject)
	}
	if selected == no {
		return ""
	}
	rules := spec.Egress
	if c.dir == Ingress {
		rules = nil
		for _, r := range spec.Ingress { // as egress rules: these have all kinds of peers
			out := npav1alpha2.ClusterNetworkPolicyEgressRule{Action: r.Action, Protocols: r.Protocols}
			for _, p := range r.From {
				out.To = append(out.To, npav1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
			}
			rules = append(rules, out)
		}
	}
	for _, r := range rules {
		action, means := string(r.Action), o.clusterPeers(r.To, c.peer)
		onPort := clusterProtocols(r.Protocols, c)
		if c.peer.unknown && c.dir == Egress {
			onPort = onPort || slices.ContainsFunc(o.all, func(pod *oraclePod) bool { // it could be this one
				is := c
				is.peer = oraclePeer{pod: pod, addr: pod.addr}
				return o.clusterPeers(r.To, is.peer) != no && clusterProtocols(r.Protocols, is)
			})
		}
		if closed := slices.ContainsFunc(r.To, func(p npav1alpha2.ClusterNetworkPolicyEgressPeer) bool {
			return p.DomainNames != nil // can't be enforced
		}); closed {
			if c.peer.own {
				continue
			}
			means = unknown
			if action == "Pass" {
				action = "Deny"
			}
		}
		if action := ruling(action, string(spec.Tier), selected == yes && means == yes && onPort, means != no && onPort); action != "" {
			return action
		}
	}
	return ""
}

// clusterPeers says whether any of a rule's peers means somebody.
func (o *oracle) clusterPeers(peers []npav1alpha2.ClusterNetworkPolicyEgressPeer, who oraclePeer) truth {
	if who.unknown {
		return unknown
	}
	out := no
	for _, p := range peers {
		out = max(out, o.clusterPods(p.Namespaces, p.Pods, who))
		if p.Nodes != nil {
			out = max(out, o.isNode(p.Nodes, who))
		}
		for _, n := range p.Networks {
			out = max(out, truthOf(inBlock(string(n), nil, who)))
		}
	}
	return out
}

func (o *oracle) clusterPods(namespaces *metav1.LabelSelector, pods *npav1alpha2.NamespacedPod, who oraclePeer) truth {
	switch {
	case who.pod == nil || who.pod.cluster != o.local:
		return no
	case namespaces != nil:
		return truthOf(has(namespaces, who.pod.namespaceLabels))
	case pods != nil:
		return o.isNamespaced(pods, who.pod)
	}
	return no
}

func (o *oracle) isNamespaced(s *npav1alpha2.NamespacedPod, p *oraclePod) truth {
	return min(truthOf(has(&s.NamespaceSelector, p.namespaceLabels)), o.pods(&s.PodSelector, p.labels))
}

// clusterProtocols asks about names where the listener is a pod; rules about networks have no names.
func clusterProtocols(list []npav1alpha2.ClusterNetworkPolicyProtocol, c connection) bool {
	for _, p := range list {
		switch {
		case p.TCP != nil && c.proto == 6 && isPort(p.TCP.DestinationPort, c.port),
			p.UDP != nil && c.proto == 17 && isPort(p.UDP.DestinationPort, c.port),
			p.SCTP != nil && c.proto == 132 && isPort(p.SCTP.DestinationPort, c.port):
			return true
		case p.DestinationNamedPort != "" && c.listener(true) != nil:
			name := p.DestinationNamedPort + "/" + map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}[c.proto]
			if slices.Contains(c.listener(true).named[name], c.port) {
				return true
			}
		}
	}
	return len(list) == 0
}

func isPort(p *npav1alpha2.Port, port uint16) bool {
	switch {
	case p == nil:
		return true
	case p.Range != nil:
		return int32(port) >= p.Range.Start && int32(port) <= p.Range.End
	}
	return int32(port) == p.Number
}
