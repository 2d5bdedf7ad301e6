// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Few priorities, so that policies often have the same.
func genPriority(t *rapid.T) int32 { return rapid.Int32Range(0, 2).Draw(t, "priority") }

// genTier puts a policy of ours into a tier, or none, and has it pass something then.
func genTier(t *rapid.T, spec *v1alpha1.ClusterMeshNetworkPolicySpec) {
	spec.Tier = rapid.SampledFrom([]v1alpha1.PolicyTier{"", v1alpha1.PolicyTierAdmin, v1alpha1.PolicyTierBaseline}).Draw(t, "tier")
	if spec.Tier == "" {
		return
	}
	priority := genPriority(t)
	spec.Priority = &priority
	for _, d := range []*v1alpha1.MeshPolicyDirection{spec.Ingress, spec.Egress} {
		if d != nil && rapid.Bool().Draw(t, "pass?") {
			d.Pass = genMeshDirection(t, "pass").Allow
		}
	}
}

func genClusterPolicy(t *rapid.T) *npav1alpha2.ClusterNetworkPolicySpec {
	spec := &npav1alpha2.ClusterNetworkPolicySpec{
		Tier:     rapid.SampledFrom([]npav1alpha2.Tier{npav1alpha2.AdminTier, npav1alpha2.BaselineTier}).Draw(t, "tier"),
		Priority: genPriority(t),
	}
	spec.Subject.Namespaces, spec.Subject.Pods = genNamespaced(t, "subjects")
	action := rapid.SampledFrom([]npav1alpha2.ClusterNetworkPolicyRuleAction{
		npav1alpha2.ClusterNetworkPolicyRuleActionAccept, npav1alpha2.ClusterNetworkPolicyRuleActionDeny, npav1alpha2.ClusterNetworkPolicyRuleActionPass,
	})
	for range rapid.IntRange(0, 3).Draw(t, "ingress rules") {
		r := npav1alpha2.ClusterNetworkPolicyIngressRule{Action: action.Draw(t, "action"), Protocols: genClusterProtocols(t, true)}
		for range rapid.IntRange(1, 2).Draw(t, "from") {
			var p npav1alpha2.ClusterNetworkPolicyIngressPeer
			p.Namespaces, p.Pods = genNamespaced(t, "peer")
			r.From = append(r.From, p)
		}
		spec.Ingress = append(spec.Ingress, r)
	}
	for range rapid.IntRange(0, 3).Draw(t, "egress rules") {
		r := npav1alpha2.ClusterNetworkPolicyEgressRule{Action: action.Draw(t, "action")}
		outside := false
		for range rapid.IntRange(1, 2).Draw(t, "to") {
			var p npav1alpha2.ClusterNetworkPolicyEgressPeer
			switch rapid.IntRange(0, 5).Draw(t, "peer kind") {
			case 0, 1:
				p.Networks = rapid.SliceOfNDistinct(rapid.SampledFrom([]npav1alpha2.CIDR{
					"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32",
				}), 1, 3, rapid.ID[npav1alpha2.CIDR]).Draw(t, "networks")
			case 2:
				if rapid.Bool().Draw(t, "nodes?") {
					p.Nodes = genNodes(t)
				} else {
					p.DomainNames = []npav1alpha2.DomainName{"fairlead.dev"}
				}
			default:
				p.Namespaces, p.Pods = genNamespaced(t, "peer")
			}
			outside = outside || p.Namespaces == nil && p.Pods == nil
			r.To = append(r.To, p)
		}
		r.Protocols = genClusterProtocols(t, !outside)
		spec.Egress = append(spec.Egress, r)
	}
	return spec
}

func genNodes(t *rapid.T) *metav1.LabelSelector {
	return genSelector(t, "nodes", "role", "worker", "infra")
}

func genNode(t *rapid.T) Node {
	n := Node{Labels: map[string]string{}}
	if role := rapid.SampledFrom([]string{"", "worker", "infra"}).Draw(t, "role"); role != "" {
		n.Labels["role"] = role
	}
	for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom(genAddresses), 0, 2, rapid.ID[string]).Draw(t, "node's addresses") {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return n
}

func genNamespaced(t *rapid.T, name string) (*metav1.LabelSelector, *npav1alpha2.NamespacedPod) {
	if rapid.Bool().Draw(t, name+" by namespace") {
		return genNS(t, name), nil
	}
	return nil, &npav1alpha2.NamespacedPod{NamespaceSelector: *genNS(t, name), PodSelector: *genPods(t, name)}
}

func genClusterProtocols(t *rapid.T, named bool) []npav1alpha2.ClusterNetworkPolicyProtocol {
	var out []npav1alpha2.ClusterNetworkPolicyProtocol
	for range rapid.IntRange(0, 2).Draw(t, "protocols") {
		var p npav1alpha2.ClusterNetworkPolicyProtocol
		port := maybe(t, "port", func(t *rapid.T, name string) *npav1alpha2.Port {
			if rapid.Bool().Draw(t, "range?") {
				from := rapid.Int32Range(1, 65534).Draw(t, "from")
				return &npav1alpha2.Port{Range: &npav1alpha2.PortRange{Start: from, End: rapid.Int32Range(from+1, 65535).Draw(t, "to")}}
			}
			return &npav1alpha2.Port{Number: rapid.SampledFrom(genPorts).Draw(t, name)}
		})
		switch kind := rapid.IntRange(0, 3).Draw(t, "protocol kind"); {
		case kind == 0 && named:
			p.DestinationNamedPort = rapid.SampledFrom([]string{"http", "admin"}).Draw(t, "name")
		case kind == 1:
			p.UDP = &npav1alpha2.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		case kind == 2:
			p.SCTP = &npav1alpha2.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		default:
			p.TCP = &npav1alpha2.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		}
		out = append(out, p)
	}
	return out
}
