// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// World is all that verdicts depend on.
type World struct {
	Cluster    string                       // the local one
	Clusters   map[string]map[string]string // cluster → its labels
	Identities map[uint32]map[string]string // of all clusters; labels as identity.PodLabels makes them
	// NamedPorts of the pods of an identity: "name/TCP" → numbers. Pods that share an identity may differ.
	NamedPorts map[uint32]map[string][]uint16
	Nodes      map[string]Node                    // of the local cluster, by name
	Node       string                             // of them, the one that judges; empty if it doesn't matter
	Services   map[ServiceName]map[string]Service // by cluster: the local one's, and those that others share
	Policies   []*Model                           // of the local cluster, each key once
}

// Connection is what is decided, seen from the subject.
type Connection struct {
	Subject uint32
	// Peer is the identity of the other end: a pod's, [identity.World], [identity.RemoteNode], [identity.Host] for the
	// subject's own node, or [identity.Unknown] for an address of the own cluster that nobody vouches for. That could be
	// anybody: no rule about some peers allows it, and all of them deny it. The own node is denied in egress only, and only
	// by a rule that names it.
	Peer  uint32
	Addr  netip.Addr // of the peer; CIDRs match it, whoever has it
	Dir   Direction
	Proto uint8
	// Port is the destination's, whichever side that is; 0 for protocols without. Of ICMP it is icmp.Port of the type that
	// the first message has.
	Port uint16
}

// Decision is what becomes of a connection.
type Decision struct {
	Verdict Verdict
	Rule    uint32 // 0 if no rule was needed
	// ByDefault says that no rule matched: the subject's isolation (or its lack) decided.
	ByDefault bool
}

// Passes says whether the connection is let through.
func (d Decision) Passes() bool { return d.Verdict != Deny }

// Reference decides straight from the rules, one connection at a time and with nothing prepared: what the Engine's maps are
// held against, and what explains a verdict.
type Reference struct {
	Rules map[uint32]Rule
	// PolicySubjects counts, for each policy that applies to this cluster, the identities that it selects.
	PolicySubjects map[string]int
	Problems       []Problem // sorted by policy

	world    *World
	clusters *clusters
	policies []numbered // those that apply, in the order of their keys
}

// numbered is a model with the ids of its rules.
type numbered struct {
	*Model
	ids *ruleIDs
}

// NewReference prepares for Evaluate and Explain. The world must not change afterwards.
func NewReference(w *World) *Reference {
	r := &Reference{PolicySubjects: map[string]int{}, world: w, clusters: newClusters(w.Cluster)}
	for name, l := range w.Clusters {
		r.clusters.set(name, l)
	}
	names := named{cluster: w.Cluster, node: w.Node, nodes: w.Nodes, services: w.Services}
	var models []*Model
	for _, policy := range w.Policies {
		for _, m := range policy.all() {
			models = append(models, names.resolve(m))
		}
	}
	slices.SortFunc(models, func(a, b *Model) int { return cmp.Compare(a.key, b.key) })
	rules, ids := registerAll(models)
	r.Rules = rules.rules
	for i, m := range models {
		r.Problems = append(r.Problems, m.ownProblems()...)
		if m.nobody {
			continue
		}
		applies, problem := r.clusters.applies(m)
		if problem != "" {
			r.Problems = append(r.Problems, Problem{PolicyKey: m.Key(), Message: problem})
		}
		if applies {
			r.policies = append(r.policies, numbered{m, ids[i]})
			r.PolicySubjects[m.Key()] = 0
		}
	}
	for _, policy := range w.Policies {
		if _, applies := r.PolicySubjects[policy.key]; applies {
			r.PolicySubjects[policy.key] = r.countSubjects(policy)
		}
	}
	return r
}

// countSubjects counts the identities that a policy selects, by any of its specs.
func (r *Reference) countSubjects(policy *Model) (n int) {
	specs := slices.DeleteFunc(policy.all(), func(m *Model) bool { return m.nobody })
	for id, l := range r.world.Identities {
		if r.clusters.isSubject(id, l) && slices.ContainsFunc(specs, func(m *Model) bool { return r.clusters.selects(&m.subjects, l, true) }) {
			n++
		}
	}
	return n
}

// Evaluate decides what becomes of a connection.
func (r *Reference) Evaluate(c Connection) Decision { return r.Explain(c).Decision }

// match holds a rule against a connection. Of several ports the most specific counts. everybody says that the rule means it
// whoever the peer is; where it names the own node beside (see direction), it counts as one about a peer for that one, and for
// somebody unknown, who may be it.
func (r *Reference) match(rule *rule, d *direction, c Connection) (m Match, everybody, ok bool) {
	named := d.ownNode && rule.kind.denies() && (c.Peer == identity.Host || c.Peer == identity.Unknown)
	if !rule.anyPeer && !r.peersMatch(rule, c) {
		return m, false, false
	}
	if rule.anyPort {
		return Match{specific: specificity(rule.anyPeer && !named, 0, 0, 0)}, rule.anyPeer, true
	}
	for _, p := range rule.ports {
		from, to, anyPeer, matches := r.portMatches(p, rule, c)
		if !matches {
			continue
		}
		everybody = everybody || anyPeer
		if s := specificity(anyPeer && !named, p.proto, from, to); !ok || s > m.specific {
			m, ok = Match{specific: s}, true
		}
	}
	return m, everybody, ok
}

// peersMatch says whether any peer of a rule is meant. Somebody unknown is not meant by an allow; what a pass does then is for
// the caller to say.
func (r *Reference) peersMatch(rule *rule, c Connection) bool {
	switch {
	case c.Peer == identity.Unknown:
		return rule.kind != RuleAllow && len(rule.peers) > 0
	case rule.outside && c.Peer != identity.World:
		return false
	}
	return slices.ContainsFunc(rule.peers, func(p peer) bool { return r.peerMatches(&p, rule.kind.denies(), c) })
}

func (r *Reference) portMatches(p port, rule *rule, c Connection) (from, to uint16, anyPeer, matches bool) {
	anyPeer = rule.anyPeer
	if p.proto != c.Proto {
		return 0, 0, anyPeer, false
	}
	if p.name == "" {
		from, to = p.span()
		return from, to, anyPeer, to == 0 || c.Port >= from && c.Port <= to
	}
	switch {
	case c.Dir == Ingress:
		return c.Port, c.Port, anyPeer, slices.Contains(r.world.NamedPorts[c.Subject][p.name], c.Port)
	case c.Peer == identity.Unknown: // any of those that the rule means
		return c.Port, c.Port, false, rule.kind != RuleAllow && r.someListen(rule, p.name, c.Port)
	}
	// A name has a number at pods that the rule selects as such: a CIDR selects addresses.
	c.Addr = netip.Addr{}
	meant := rule.anyPeer || r.peersMatch(rule, c)
	return c.Port, c.Port, false, meant && slices.Contains(r.world.NamedPorts[c.Peer][p.name], c.Port)
}

// someListen says whether any of a rule's peers that are pods calls a port by a name.
func (r *Reference) someListen(rule *rule, name string, number uint16) bool {
	for id, named := range r.world.NamedPorts {
		if !identity.IsPod(id) || !slices.Contains(named[name], number) {
			continue
		}
		if _, known := r.world.Identities[id]; !known {
			continue
		}
		pod := Connection{Peer: id}
		if rule.anyPeer || r.peersMatch(rule, pod) {
			return true
		}
	}
	return false
}

// peerMatches says whether a peer of a rule is meant. orUnknown is set for denies: who could be meant is.
func (r *Reference) peerMatches(p *peer, orUnknown bool, c Connection) bool {
	switch {
	case p.entity != 0:
		return c.Peer == p.entity || c.Peer == identity.Host && p.entity == identity.RemoteNode ||
			c.Peer == identity.RemoteNode && p.entity == otherNodes
	case p.pods == nil:
		return c.Addr.IsValid() && p.cidr.Contains(c.Addr) &&
			!slices.ContainsFunc(p.except, func(e netip.Prefix) bool { return e.Contains(c.Addr) })
	case !identity.IsPod(c.Peer):
		return false
	}
	l, known := r.world.Identities[c.Peer]
	return known && r.clusters.selects(p.pods, l, orUnknown)
}

// specificity orders what matches within a level, so that of several rules the closest one is blamed: a rule about some
// peers before one about everybody, then one about a protocol, then the narrower range. It can't change the verdict.
func specificity(anyPeer bool, proto uint8, from, to uint16) int {
	s := 65536 - int(to-from)
	if to == 0 {
		s = 0
	}
	if proto != 0 {
		s += 1 << 17
	}
	if !anyPeer {
		s += 1 << 18
	}
	return s
}
