// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// party is an end that was found.
type party struct {
	pod  *world.Pod
	node *world.Node
	addr netip.Addr // that packets bear; invalid if it is not known
}

// isSubject says whether policies judge what the party sends and receives.
func (p party) isSubject() bool { return p.pod != nil && !p.pod.HostNetwork }

// onNode is the node that a host-network pod or a node is, in its cluster.
func (p party) onNode() (cluster, node string) {
	switch {
	case p.pod != nil:
		return p.pod.Cluster, p.pod.Node
	case p.node != nil:
		return p.node.Cluster, p.node.Name
	}
	return "", ""
}

func (p party) tell() Party {
	out := Party{Kind: KindAddress}
	if p.addr.IsValid() {
		out.Address = p.addr.String()
	}
	switch {
	case p.pod != nil:
		out.Kind, out.Cluster, out.Name, out.Node = KindPod, p.pod.Cluster, p.pod.Namespace+"/"+p.pod.Name, p.pod.Node
		if p.pod.Identity != 0 {
			out.Identity = identity.Name(p.pod.Identity)
		}
	case p.node != nil:
		out.Kind, out.Cluster, out.Name = KindNode, p.node.Cluster, p.node.Name
	}
	return out
}

// on is the protocol and port of a place for two addresses: of ICMP both depend on the family.
func (p place) on(from, to party) (proto uint8, port uint16, err error) {
	if p.icmp == "" {
		return p.proto, p.port, nil
	}
	proto = protoICMP
	if to.addr.Is6() || !to.addr.IsValid() && from.addr.Is6() {
		proto = protoICMPv6
	}
	typ, err := icmp.Parse(proto, p.icmp)
	if err == nil && icmp.IsError(proto, typ) {
		err = fmt.Errorf("type %s is an error message", p.icmp)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", protocolName(proto), err)
	}
	return proto, icmp.Port(typ), nil
}

// judge decides one connection.
func (e *explainer) judge(from, to party, proto uint8, port uint16) Connection {
	c := Connection{From: from.tell(), To: to.tell(), Protocol: protocolName(proto), Port: port}
	if icmp.Is(proto) {
		c.Port, c.ICMPType = 0, icmp.PortName(proto, port)
	}
	c.Egress = e.side(policy.Egress, from, to, proto, port)
	c.Ingress = e.side(policy.Ingress, to, from, proto, port)
	c.Verdict = both(c.Egress, c.Ingress)
	return c
}

// side asks the policies of one end about the other.
func (e *explainer) side(dir policy.Direction, subject, peer party, proto uint8, port uint16) Side {
	switch {
	case !subject.isSubject():
		return Side{Verdict: Allowed, Exempt: ExemptNotAPod, Why: notAPod(subject)}
	case subject.pod == peer.pod:
		return Side{Verdict: Allowed, Exempt: ExemptSelf, Why: "a pod may always reach itself"}
	}
	seen := e.seenAs(dir, subject.pod, peer)
	s := Side{Verdict: seen.verdict, Exempt: seen.exempt, PeerSeenAs: seen.text, Why: seen.why, Missing: seen.missing}
	if seen.exempt != ExemptNone {
		return s
	}
	cluster := e.mesh.Clusters[subject.pod.Cluster]
	if len(cluster.Missing) > 0 {
		for _, m := range cluster.Missing {
			s.Missing = append(s.Missing, "cluster "+cluster.Name+": "+m)
		}
	}
	if subject.pod.Identity == 0 {
		s.Missing = append(s.Missing, fmt.Sprintf("pod %s: its labels have no identity yet, so agents don't know it; wait a moment, or see that the operator runs", subject.pod))
	}
	if cluster.Live() {
		var stale []string
		s.Enforced, stale = enforced(cluster, subject.pod)
		s.Missing = append(s.Missing, stale...)
	}
	e.ask(cluster, policy.Connection{
		Subject: subject.pod.Identity, Peer: seen.identity, Addr: peer.addr, Dir: dir, Proto: proto, Port: port,
	}, &s)
	if seen.identity == identity.Host && s.Verdict == Allowed && s.Rule == nil {
		s.Exempt, s.Why = ExemptOwnNode, "a pod may reach its own node unless a rule names it"
	}
	if len(s.Missing) > 0 {
		s.Why = fmt.Sprintf("with what could be read it would be %s: %s", s.Verdict, s.Why)
		s.Verdict = Unknown
	}
	return s
}

// ask is the one place where a verdict comes from: the engine.
func (e *explainer) ask(cluster *world.Cluster, c policy.Connection, s *Side) {
	why := e.mesh.Reference(cluster.Name).Explain(c)
	switch {
	case !why.Passes():
		s.Verdict = Denied
	case why.Verdict == policy.Allow:
		s.Verdict = Allowed
	default:
		s.Verdict = Audited
	}
	if why.Passed != nil {
		rule := cluster.Tell(*why.Passed)
		s.Passed = &rule
	}
	if why.Rule != nil {
		rule := cluster.Tell(*why.Rule)
		s.Rule, s.Why = &rule, rule.Text
		if why.Rule.Kind == policy.RulePass && why.Verdict != policy.Allow {
			s.Why = "denied, because nobody knows whether the rule means the other side: " + rule.Text
		}
	}
	also := func(r policy.Rule) {
		if !is(why.Rule, r) && !is(why.Passed, r) {
			s.Also = append(s.Also, cluster.Tell(r))
		}
	}
	for _, m := range why.Matches {
		also(m.Rule)
	}
	for _, r := range why.Isolation {
		also(r)
	}
	switch {
	case why.Rule != nil:
	case s.Verdict == Denied:
		s.Why = "the other side is nobody that agents know"
	case why.Passed != nil:
		s.Why = fmt.Sprintf("no policy behind the Admin tier has a say for %s", c.Dir)
	default:
		s.Why = fmt.Sprintf("no policy has a say for %s", c.Dir)
	}
}

// is compares rules by what they are called: a pass that denies who may not be meant has no number.
func is(a *policy.Rule, b policy.Rule) bool {
	return a != nil && a.PolicyKey == b.PolicyKey && world.Place(*a) == world.Place(b)
}

func notAPod(p party) string {
	switch {
	case p.pod != nil:
		return "a pod on the host's network is its node, and nodes have no policies"
	case p.node != nil:
		return "nodes have no policies"
	}
	return "addresses outside of the mesh have no policies"
}

// seen is whom a peer counts as for a pod.
type seen struct {
	identity uint32
	text     string
	verdict  Verdict
	exempt   Exemption
	why      string
	missing  []string
}

func (e *explainer) seenAs(dir policy.Direction, subject *world.Pod, peer party) seen {
	if peer.isSubject() {
		return e.seenPod(subject, peer.pod)
	}
	own := e.mesh.Clusters[subject.Cluster]
	if cluster, node := peer.onNode(); node != "" {
		out := seen{identity: identity.RemoteNode, text: "another node"}
		if cluster == subject.Cluster && node == subject.Node {
			out.identity, out.text = identity.Host, "its own node"
			if dir == policy.Ingress {
				return seen{text: out.text, verdict: Allowed, exempt: ExemptOwnNode, why: "a node may always reach its own pods"}
			}
		}
		if subject.Node == "" && cluster == subject.Cluster {
			out.missing = append(out.missing, fmt.Sprintf("pod %s: its node is not known, so it may be this one", subject))
		}
		if !peer.addr.IsValid() {
			out.missing = append(out.missing, fmt.Sprintf("node %s/%s: its address is not known, so CIDRs can't be held against it", cluster, node))
		}
		return out
	}
	return e.seenAddress(own, peer.addr)
}

func (e *explainer) seenPod(subject, peer *world.Pod) seen {
	out := seen{identity: peer.Identity, text: "pod " + peer.String()}
	if peer.Cluster != subject.Cluster {
		own := e.mesh.Clusters[subject.Cluster]
		if other, known := own.Others[peer.Cluster]; own.Live() && (!known || other.Unused != "") {
			why := other.Unused
			if !known {
				why = "it is no member of the mesh as that cluster sees it"
			}
			out.missing = append(out.missing, fmt.Sprintf("cluster %s may not know the pods of cluster %s: %s", own.Name, peer.Cluster, why))
		}
	}
	if peer.Identity == 0 {
		out.missing = append(out.missing, fmt.Sprintf("pod %s: its labels have no identity yet, so agents don't know it; wait a moment, or see that the operator runs", peer))
	}
	return out
}

// seenAddress is whom an address counts as that no pod and no node has.
func (e *explainer) seenAddress(own *world.Cluster, a netip.Addr) seen {
	within := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	switch {
	case within(own.PodCIDRs) && own.Strict:
		return dropped(a, own.Name)
	case within(own.PodCIDRs):
		return seen{identity: identity.Unknown, text: "unknown: an address of the own cluster that nobody vouches for"}
	case within(own.ServiceCIDRs):
		return seen{identity: identity.Unknown, text: "unknown: an address of a service that leads nobody knows where"}
	}
	for _, name := range e.mesh.Names() {
		if c := e.mesh.Clusters[name]; c != own && within(c.PodCIDRs) {
			return dropped(a, name)
		}
	}
	for name, o := range own.Others {
		if within(o.PodCIDRs) {
			return seen{identity: identity.Unknown, text: "an address of cluster " + name, missing: []string{
				fmt.Sprintf("cluster %s was not read, and %s is an address of it; add its --context", name, a),
			}}
		}
	}
	return seen{identity: identity.World, text: "the world"}
}

func dropped(a netip.Addr, cluster string) seen {
	return seen{
		text: "nobody", verdict: Denied, exempt: ExemptUnvouched,
		why: fmt.Sprintf("%s is in the pod CIDRs of cluster %s and no pod or node is known to have it: dropped before any policy", a, cluster),
	}
}
