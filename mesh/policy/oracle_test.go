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

	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// The oracle reads policies as their documentation is written, one connection at a time, straight from the API types. It
// shares no code with the compiler: where the two disagree, one of them is wrong.

type oraclePod struct {
	cluster, namespace      string
	labels, namespaceLabels map[string]string
	account                 string
	named                   map[string][]uint16
	addr                    netip.Addr
}

// oraclePeer is a pod, a node or an address outside. Who has an address of the cluster that nobody vouches for is unknown:
// it could be any of them.
type oraclePeer struct {
	pod     *oraclePod
	addr    netip.Addr
	unknown bool
	entity  v1alpha1.PolicyEntity // if it is no pod
	own     bool                  // it is the subject's own node
}

type oraclePolicy struct {
	namespace string
	network   *networkingv1.NetworkPolicySpec
	mesh      *v1alpha1.ClusterMeshNetworkPolicySpec // of both of our kinds; the namespace makes the difference
	cluster   *npav1alpha2.ClusterNetworkPolicySpec
	cilium    []ciliumMeans
	name      string
	audited   bool // by its namespace or the cluster
}

// subjects is the selector of a policy's subjects, as text.
func (p oraclePolicy) subjects() string {
	if p.network != nil {
		return p.network.PodSelector.String()
	}
	if p.mesh != nil {
		return p.mesh.PodSelector.String()
	}
	if p.cilium != nil {
		return ciliumSubjects(p.cilium)
	}
	if p.cluster.Subject.Pods != nil {
		return p.cluster.Subject.Pods.PodSelector.String()
	}
	return ""
}

type oracle struct {
	local    string
	clusters map[string]map[string]string
	all      []*oraclePod
	nodes    []Node // of the local cluster
	node     *Node  // of them, the subjects' own; nil: none that is known
	services map[ServiceName]map[string]Service
	policies []oraclePolicy
	audited  bool // the cluster has all policies audited
	// omniscient: it sees also the labels that identities leave out, as the policies' authors do.
	omniscient bool
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

// says is what one policy of a namespace thinks of a connection.
type says struct{ isolates, isolatesOwn, allows, denies bool } // isolatesOwn: from the subject's own node, too

// verdict is what enforcing policies make of a connection. Where they let it through and all policies together, those in
// Audit mode included, would not, it is reported.
func (o *oracle) verdict(c connection) Verdict {
	switch {
	case !o.passes(c, false):
		return Deny
	case !o.passes(c, true):
		return AuditDeny
	}
	return Allow
}

// passes asks the tiers one after another, with or without the policies in Audit mode. A node always reaches its pods, and
// they reach it unless a rule says that it is about nodes, or addresses, and denies it.
func (o *oracle) passes(c connection, audit bool) bool {
	if c.peer.own && c.dir == Ingress || o.audited && !audit {
		return true
	}
	switch o.ordered(c, audit, "Admin") {
	case "Accept":
		return true
	case "Deny":
		return false
	}
	var all says
	for _, p := range o.policies {
		if p.tier() != "" || p.audit() && !audit {
			continue
		}
		s := o.ask(p, c)
		if p.audited && !audit {
			s = says{allows: s.allows} // what it opens is open
		}
		all.isolates = all.isolates || s.isolates
		all.allows = all.allows || s.allows
		all.denies = all.denies || s.denies
		all.isolatesOwn = all.isolatesOwn || s.isolatesOwn
	}
	switch {
	case all.denies:
		return false
	case all.allows:
		return true
	case all.isolates && (!c.peer.own || all.isolatesOwn):
		return false
	}
	return o.ordered(c, audit, "Baseline") != "Deny"
}

func (o *oracle) ask(p oraclePolicy, c connection) says {
	if p.network != nil {
		return o.askNetwork(p, c)
	}
	if p.cilium != nil {
		return o.askCilium(p, c)
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
	d, selected := o.meshDirection(spec, c)
	if d == nil {
		return says{}
	}
	s := says{isolates: d.DefaultAction != "Allow"}
	for _, r := range d.Allow {
		s.allows = s.allows || selected == yes && o.surely(p.namespace, r, c)
	}
	for _, r := range d.Deny {
		s.denies = s.denies || o.maybe(p.namespace, r, c)
	}
	return s
}

// meshDirection is what a policy says about the connection's direction, and whether it means the subject; nil if it doesn't.
func (o *oracle) meshDirection(spec *v1alpha1.ClusterMeshNetworkPolicySpec, c connection) (*v1alpha1.MeshPolicyDirection, truth) {
	selected := o.pods(&spec.PodSelector, c.subject.labels)
	if selected == no || !has(spec.NamespaceSelector, c.subject.namespaceLabels) || !has(spec.ClusterSelector, o.clusterLabels(o.local)) {
		return nil, no
	}
	if c.dir == Egress {
		return spec.Egress, selected
	}
	return spec.Ingress, selected
}

// surely says whether a rule means a connection whoever the peer is.
func (o *oracle) surely(namespace string, r v1alpha1.MeshPolicyRule, c connection) bool {
	if c.peer.unknown && len(r.Peers) > 0 {
		return false
	}
	return o.meshRule(namespace, r, c, yes)
}

// maybe says whether a rule may mean a connection: somebody unknown could be any pod, and listen where that does.
func (o *oracle) maybe(namespace string, r v1alpha1.MeshPolicyRule, c connection) bool {
	if c.peer.own && len(r.Peers) == 0 {
		return false
	}
	if o.meshRule(namespace, r, c, unknown) {
		return true
	}
	return c.peer.unknown && c.dir == Egress && slices.ContainsFunc(o.all, func(pod *oraclePod) bool {
		c := c
		c.peer = oraclePeer{pod: pod, addr: pod.addr}
		return o.meshRule(namespace, r, c, unknown)
	})
}

// meshRule says whether a rule is about a connection, with a peer that is meant at least that surely.
func (o *oracle) meshRule(namespace string, r v1alpha1.MeshPolicyRule, c connection, least truth) bool {
	peers := len(r.Peers) == 0 || c.peer.unknown
	asPod := peers
	for _, p := range r.Peers {
		is := o.meshPeer(namespace, p, c.peer, least)
		peers = peers || is
		asPod = asPod || is && o.asPod(p, c.peer)
	}
	ports := len(r.Ports) == 0 && len(r.ICMP) == 0
	for _, p := range r.Ports {
		ports = ports || meshPortMatches(p, c, asPod)
	}
	for _, m := range r.ICMP {
		ports = ports || isMessage(m, c)
	}
	return peers && ports
}

func (o *oracle) meshPeer(namespace string, p v1alpha1.MeshPolicyPeer, who oraclePeer, least truth) bool {
	switch {
	case p.CIDR != "":
		return inBlock(p.CIDR, p.Except, who)
	case p.NodeSelector != nil:
		return o.isNode(p.NodeSelector, who) >= least
	case len(p.Services) > 0:
		return slices.ContainsFunc(p.Services, func(s v1alpha1.MeshPolicyService) bool {
			_, is := o.behind(ServiceName{s.Namespace, s.Name}, who)
			return is >= least
		})
	case len(p.Entities) > 0:
		return who.entity != "" && slices.Contains(p.Entities, who.entity)
	case who.pod == nil:
		return false
	case len(p.ServiceAccounts) > 0 && !slices.Contains(p.ServiceAccounts, who.pod.account):
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

// isMessage says whether a connection is ICMP of a family and type. Its port is the type + 1.
func isMessage(m v1alpha1.MeshPolicyICMP, c connection) bool {
	family := map[uint8]string{1: "IPv4", 58: "IPv6"}[c.proto]
	if family == "" || m.Family != "" && m.Family != family {
		return false
	}
	if m.Type == nil {
		return true
	}
	numbers := map[string]map[string]int32{
		"EchoRequest": {"IPv4": 8, "IPv6": 128}, "EchoReply": {"IPv4": 0, "IPv6": 129},
		"TimestampRequest": {"IPv4": 13}, "NodeInformationQuery": {"IPv6": 139},
	}
	number, has := numbers[m.Type.StrVal][family]
	if m.Type.Type == intstr.Int {
		number, has = m.Type.IntVal, true
	}
	return has && int32(c.port) == number+1
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

// isNode says whether somebody is a node that a selector chooses, or has an address of one. Nothing may be known of the own node.
func (o *oracle) isNode(s *metav1.LabelSelector, who oraclePeer) truth {
	at := truthOf(slices.ContainsFunc(o.nodes, func(n Node) bool { return has(s, n.Labels) && slices.Contains(n.Addresses, who.addr) }))
	switch {
	case !who.own || at == yes:
		return at
	case o.node == nil:
		return unknown
	}
	return truthOf(has(s, o.node.Labels))
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
