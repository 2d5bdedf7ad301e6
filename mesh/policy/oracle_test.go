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

// subjects is the selector of a policy's subjects, as text.
func (p oraclePolicy) subjects() string {
	if p.network != nil {
		return p.network.PodSelector.String()
	}
	return p.mesh.PodSelector.String()
}

type oracle struct {
	local    string
	clusters map[string]map[string]string
	all      []*oraclePod
	policies []oraclePolicy
	// omniscient: it sees also the labels that identities leave out, as the policies' authors do.
	omniscient bool
}

// leftOut are labels that identities leave out, of those that generated pods have. Whether a pod has one is unknown.
var leftOut = []string{"statefulset.kubernetes.io/pod-name", "pod-template-hash", "fairlead.dev/forged"}

func (o *oracle) seeingAll() *oracle {
	all := *o
	all.omniscient = true
	return &all
}

// truth of a selector for a pod.
type truth int

const (
	no truth = iota
	unknown
	yes
)

// pods says whether a selector of pods means one: no if a requirement that can be judged isn't met, else unknown if one can't
// be judged.
func (o *oracle) pods(s *metav1.LabelSelector, l map[string]string) truth {
	if s == nil || o.omniscient {
		return truthOf(has(s, l))
	}
	rest, left := s.DeepCopy(), false
	for key := range s.MatchLabels {
		if slices.Contains(leftOut, key) {
			delete(rest.MatchLabels, key)
			left = true
		}
	}
	rest.MatchExpressions = slices.DeleteFunc(rest.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		is := slices.Contains(leftOut, r.Key)
		left = left || is
		return is
	})
	out := truthOf(has(rest, l))
	if out == yes && left {
		return unknown
	}
	return out
}

func truthOf(is bool) truth {
	if is {
		return yes
	}
	return no
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
func (c connection) listener(peerSelectedAsPod bool) *oraclePod {
	if c.dir == Ingress {
		return c.subject
	}
	if !peerSelectedAsPod {
		return nil
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
	selected := o.pods(&spec.PodSelector, c.subject.labels)
	if c.subject.namespace != p.namespace || selected == no {
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
			s.allows = s.allows || selected == yes && o.networkRule(p.namespace, r.From, r.Ports, c)
		}
	}
	if c.dir == Egress && slices.Contains(types, networkingv1.PolicyTypeEgress) {
		s.isolates = true
		for _, r := range spec.Egress {
			s.allows = s.allows || selected == yes && o.networkRule(p.namespace, r.To, r.Ports, c)
		}
	}
	return s
}

func (o *oracle) networkRule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, c connection) bool {
	if !o.networkPeers(namespace, peers, c.peer) {
		return false
	}
	asPod := c.peer // a CIDR selects addresses: names of ports are those of pods that are selected as such
	asPod.addr = netip.Addr{}
	return networkPorts(ports, c, o.networkPeers(namespace, peers, asPod))
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
		if has(p.NamespaceSelector, who.pod.namespaceLabels) && o.pods(p.PodSelector, who.pod.labels) == yes {
			return true
		}
	}
	return false
}

func networkPorts(ports []networkingv1.NetworkPolicyPort, c connection, asPod bool) bool {
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
			if l := c.listener(asPod); l != nil && slices.Contains(l.named[p.Port.StrVal+"/"+string(*p.Protocol)], c.port) {
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
	selected := o.pods(&spec.PodSelector, c.subject.labels)
	if selected == no || !has(spec.NamespaceSelector, c.subject.namespaceLabels) ||
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
		s.allows = s.allows || selected == yes && o.meshRule(p.namespace, r, c, yes) && (!c.peer.unknown || len(r.Peers) == 0)
	}
	for _, r := range d.Deny {
		s.denies = s.denies || o.meshRule(p.namespace, r, c, unknown)
		for _, pod := range o.all { // it could be this one
			if anyOf := c; c.peer.unknown {
				anyOf.peer = oraclePeer{pod: pod, addr: pod.addr}
				s.denies = s.denies || c.dir == Egress && o.meshRule(p.namespace, r, anyOf, unknown)
			}
		}
	}
	return s
}

// meshRule says whether a rule is about a connection, with a peer that is meant at least that surely.
func (o *oracle) meshRule(namespace string, r v1alpha1.MeshPolicyRule, c connection, least truth) bool {
	peers := len(r.Peers) == 0 || c.peer.unknown
	asPod := peers
	for _, p := range r.Peers {
		is := o.meshPeer(namespace, p, c.peer, least)
		peers = peers || is
		asPod = asPod || is && p.CIDR == ""
	}
	ports := len(r.Ports) == 0
	for _, p := range r.Ports {
		ports = ports || meshPortMatches(p, c, asPod)
	}
	return peers && ports
}

func (o *oracle) meshPeer(namespace string, p v1alpha1.MeshPolicyPeer, who oraclePeer, least truth) bool {
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
		has(p.NamespaceSelector, who.pod.namespaceLabels) && o.pods(p.PodSelector, who.pod.labels) >= least
}

func meshPortMatches(p v1alpha1.MeshPolicyPort, c connection, asPod bool) bool {
	if !isNamed(p.Protocol, c.proto) {
		return false
	}
	switch {
	case p.Name != "":
		name := p.Protocol
		if name == "" {
			name = "TCP"
		}
		l := c.listener(asPod)
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
	if !who.addr.IsValid() || !netip.MustParsePrefix(cidr).Contains(who.addr) {
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
