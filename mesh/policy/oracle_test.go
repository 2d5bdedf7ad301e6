// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// The oracle reads policies as their documentation is written, one connection at a time, straight from the API types. It
// shares no code with the compiler: where the two disagree, one of them is wrong.

type oraclePod struct {
	cluster, namespace      string
	labels, namespaceLabels map[string]string
	named                   map[string][]uint16
	addr                    netip.Addr
}

// oraclePeer is a pod, a node or an address outside. Who has an address of the cluster that nobody vouches for is unknown:
// it could be any of them.
type oraclePeer struct {
	pod     *oraclePod
	addr    netip.Addr
	unknown bool
}

type oraclePolicy struct {
	namespace string
	network   *networkingv1.NetworkPolicySpec
	mesh      *v1alpha1.ClusterMeshNetworkPolicySpec // of both of our kinds; the namespace makes the difference
}

type oracle struct {
	local    string
	clusters map[string]map[string]string
	pods     []*oraclePod
	policies []oraclePolicy
}

// connection as seen from the subject.
type connection struct {
	subject *oraclePod
	peer    oraclePeer
	dir     Direction
	proto   uint8
	port    uint16
}

// listener is the pod with the port names that count.
func (c connection) listener() *oraclePod {
	if c.dir == Ingress {
		return c.subject
	}
	return c.peer.pod
}

// says is what one policy thinks of a connection.
type says struct{ isolates, allows, denies, audit bool }

func (o *oracle) verdict(c connection) Verdict {
	var enforced, audited says
	for _, p := range o.policies {
		s := o.ask(p, c)
		into := &enforced
		if s.audit {
			into = &audited
		}
		into.isolates = into.isolates || s.isolates
		into.allows = into.allows || s.allows
		into.denies = into.denies || s.denies
	}
	switch {
	case enforced.denies, enforced.isolates && !enforced.allows:
		return Deny
	case audited.denies, audited.isolates && !audited.allows && !enforced.allows:
		return AuditDeny
	}
	return Allow
}

func (o *oracle) ask(p oraclePolicy, c connection) says {
	if p.network != nil {
		return o.askNetwork(p, c)
	}
	return o.askMesh(p, c)
}

func (o *oracle) askNetwork(p oraclePolicy, c connection) says {
	spec := p.network
	if c.subject.namespace != p.namespace || !has(&spec.PodSelector, c.subject.labels) {
		return says{}
	}
	types := spec.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			types = append(types, networkingv1.PolicyTypeEgress)
		}
	}
	s := says{}
	if c.dir == Ingress && slices.Contains(types, networkingv1.PolicyTypeIngress) {
		s.isolates = true
		for _, r := range spec.Ingress {
			s.allows = s.allows || o.networkRule(p.namespace, r.From, r.Ports, c)
		}
	}
	if c.dir == Egress && slices.Contains(types, networkingv1.PolicyTypeEgress) {
		s.isolates = true
		for _, r := range spec.Egress {
			s.allows = s.allows || o.networkRule(p.namespace, r.To, r.Ports, c)
		}
	}
	return s
}

func (o *oracle) networkRule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, c connection) bool {
	return o.networkPeers(namespace, peers, c.peer) && networkPorts(ports, c)
}

func (o *oracle) networkPeers(namespace string, peers []networkingv1.NetworkPolicyPeer, who oraclePeer) bool {
	if len(peers) == 0 {
		return true
	}
	if who.unknown {
		return false
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			if inBlock(p.IPBlock.CIDR, p.IPBlock.Except, who) {
				return true
			}
			continue
		}
		if who.pod == nil || who.pod.cluster != o.local {
			continue
		}
		if p.NamespaceSelector == nil && who.pod.namespace != namespace {
			continue
		}
		if has(p.NamespaceSelector, who.pod.namespaceLabels) && has(p.PodSelector, who.pod.labels) {
			return true
		}
	}
	return false
}

func networkPorts(ports []networkingv1.NetworkPolicyPort, c connection) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		if name := string(*p.Protocol); !isNamed(name, c.proto) {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if l := c.listener(); l != nil && slices.Contains(l.named[p.Port.StrVal+"/"+string(*p.Protocol)], c.port) {
				return true
			}
		case p.EndPort != nil:
			if int32(c.port) >= p.Port.IntVal && int32(c.port) <= *p.EndPort {
				return true
			}
		case int32(c.port) == p.Port.IntVal:
			return true
		}
	}
	return false
}

func (o *oracle) askMesh(p oraclePolicy, c connection) says {
	spec := p.mesh
	if p.namespace != "" && c.subject.namespace != p.namespace {
		return says{}
	}
	if !has(spec.PodSelector.DeepCopy(), c.subject.labels) || !has(spec.NamespaceSelector, c.subject.namespaceLabels) ||
		!has(spec.ClusterSelector, o.clusterLabels(o.local)) {
		return says{}
	}
	d := spec.Ingress
	if c.dir == Egress {
		d = spec.Egress
	}
	if d == nil {
		return says{}
	}
	s := says{isolates: d.DefaultAction != "Allow", audit: spec.Mode == v1alpha1.PolicyAudit}
	for _, r := range d.Allow {
		s.allows = s.allows || o.meshRule(p.namespace, r, c) && (!c.peer.unknown || len(r.Peers) == 0)
	}
	for _, r := range d.Deny {
		s.denies = s.denies || o.meshRule(p.namespace, r, c)
		for _, pod := range o.pods { // it could be this one
			if anyOf := c; c.peer.unknown {
				anyOf.peer = oraclePeer{pod: pod, addr: pod.addr}
				s.denies = s.denies || c.dir == Egress && o.meshRule(p.namespace, r, anyOf)
			}
		}
	}
	return s
}

func (o *oracle) meshRule(namespace string, r v1alpha1.MeshPolicyRule, c connection) bool {
	peers := len(r.Peers) == 0 || c.peer.unknown
	for _, p := range r.Peers {
		peers = peers || o.meshPeer(namespace, p, c.peer)
	}
	ports := len(r.Ports) == 0
	for _, p := range r.Ports {
		ports = ports || meshPortMatches(p, c)
	}
	return peers && ports
}

func (o *oracle) meshPeer(namespace string, p v1alpha1.MeshPolicyPeer, who oraclePeer) bool {
	if p.CIDR != "" {
		return inBlock(p.CIDR, p.Except, who)
	}
	if who.pod == nil {
		return false
	}
	if p.ClusterSelector == nil && who.pod.cluster != o.local {
		return false
	}
	if p.NamespaceSelector == nil && namespace != "" && who.pod.namespace != namespace {
		return false
	}
	return has(p.ClusterSelector, o.clusterLabels(who.pod.cluster)) &&
		has(p.NamespaceSelector, who.pod.namespaceLabels) && has(p.PodSelector, who.pod.labels)
}

func meshPortMatches(p v1alpha1.MeshPolicyPort, c connection) bool {
	if !isNamed(p.Protocol, c.proto) {
		return false
	}
	switch {
	case p.Name != "":
		name := p.Protocol
		if name == "" {
			name = "TCP"
		}
		l := c.listener()
		return l != nil && slices.Contains(l.named[p.Name+"/"+name], c.port)
	case p.Port == nil:
		return true
	case p.EndPort != nil:
		return int32(c.port) >= *p.Port && int32(c.port) <= *p.EndPort
	}
	return int32(c.port) == *p.Port
}

func (o *oracle) clusterLabels(name string) map[string]string {
	out := maps.Clone(o.clusters[name])
	out["fairlead.dev/cluster"] = name
	return out
}

func has(s *metav1.LabelSelector, l map[string]string) bool {
	if s == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(l))
}

func inBlock(cidr string, except []string, who oraclePeer) bool {
	if !netip.MustParsePrefix(cidr).Contains(who.addr) {
		return false
	}
	for _, e := range except {
		if netip.MustParsePrefix(e).Contains(who.addr) {
			return false
		}
	}
	return true
}

func isNamed(name string, proto uint8) bool {
	return map[string]uint8{"": 6, "TCP": 6, "UDP": 17, "SCTP": 132}[name] == proto
}
