// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

type policyRecord = recordv1.Policy

// Levels of precedence. Within a level the more specific entry wins, so that of several matching rules the closest one
// is blamed; it can't change the verdict, which is the same for a whole level.
const (
	levelAllow     = 1 << 8
	levelAuditDeny = 2 << 8
	levelDeny      = 3 << 8
)

// precedence of an entry: its level, then how much of the key is not a wildcard.
func precedence(level uint32, k EntryKey) uint32 {
	p := level | uint32(k.PortPrefix)
	if k.Peer != 0 {
		p |= 1 << 6
	}
	if k.Proto != 0 {
		p |= 1 << 5
	}
	return p
}

// resolvedRule is a rule in terms of identities and port blocks, as far as that does not depend on the subject.
type resolvedRule struct {
	peers []uint32 // {0}: any
	ports []portPrefix
	named []port
}

// match is what one entry matches, without its subject.
type match struct {
	peer uint32
	port portPrefix
}

func (c *compiler) emit() {
	for key, s := range c.states {
		e := emitter{c: c, key: key, state: s}
		e.run()
	}
}

// emitter writes the entries of one direction of one subject.
type emitter struct {
	c       *compiler
	key     SubjectKey
	state   *state
	subject Subject
}

func (e *emitter) run() {
	enforced := len(e.state.enforced) > 0
	if blame := append(slices.Clone(e.state.enforced), e.state.audited...); len(blame) > 0 {
		e.subject.Isolated, e.subject.Audit, e.subject.DefaultRule = true, !enforced, blame[0]
		e.c.out.Isolation[e.key] = blame
	}
	for _, r := range e.state.rules {
		switch {
		case r.kind == RuleDeny && !r.audit:
			e.each(r.rule, func(m match) { e.put(m, r.id, levelDeny, Deny) })
		case r.kind == RuleDeny && enforced:
			e.auditWithin(r)
		case r.kind == RuleDeny:
			e.each(r.rule, func(m match) { e.put(m, r.id, levelAuditDeny, AuditDeny) })
		case !r.audit || !enforced:
			e.each(r.rule, func(m match) { e.put(m, r.id, levelAllow, Allow) })
		}
		// An allow rule of an audit policy opens nothing that an enforcing policy keeps closed.
	}
	e.c.out.Subjects[e.key] = e.subject
}

// auditWithin marks what an audit policy would deny, but only where it passes otherwise: the entry lets through, and
// must not do so for what an enforcing policy denies.
func (e *emitter) auditWithin(deny appliedRule) {
	var passes []match
	for _, r := range e.state.rules {
		if r.kind == RuleAllow && !r.audit {
			e.each(r.rule, func(m match) { passes = append(passes, m) })
		}
	}
	e.each(deny.rule, func(d match) {
		for _, p := range passes {
			peer := d.peer
			if peer == 0 {
				peer = p.peer
			} else if p.peer != 0 && p.peer != peer {
				continue
			}
			if port, ok := d.port.intersect(p.port); ok {
				e.put(match{peer, port}, deny.id, levelAuditDeny, AuditDeny)
			}
		}
	})
}

// put enters a match. Where two rules of a level match exactly the same, the first (by policy key) is blamed.
func (e *emitter) put(m match, rule uint32, level uint32, v Verdict) {
	key := EntryKey{
		Subject: e.key.Identity, Peer: m.peer, Port: m.port.value, PortPrefix: m.port.bits, Proto: m.port.proto, Dir: e.key.Dir,
	}
	entry := Entry{Precedence: precedence(level, key), Rule: rule, Verdict: v}
	if have, ok := e.c.out.Entries[key]; ok && have.Precedence >= entry.Precedence {
		return
	}
	e.c.out.Entries[key] = entry
	e.subject.PortPrefixes |= 1 << key.PortPrefix
	e.subject.Prefixes[key.Kind()] |= 1 << key.PortPrefix
}

// each calls do for everything a rule matches for this subject.
func (e *emitter) each(r *rule, do func(match)) {
	res := e.c.resolve(r)
	for _, peer := range res.peers {
		for _, p := range res.ports {
			do(match{peer, p})
		}
	}
	for _, p := range res.named {
		e.eachNamed(res, p, do)
	}
}

// eachNamed resolves a named port with the pods that listen: the subject's own for ingress, the peers' for egress.
func (e *emitter) eachNamed(res *resolvedRule, p port, do func(match)) {
	named := e.c.in.NamedPorts
	if e.key.Dir == Ingress {
		for _, n := range named[e.key.Identity][p.name] {
			for _, peer := range res.peers {
				do(match{peer, portPrefix{p.proto, n, 16}})
			}
		}
		return
	}
	for _, peer := range res.peers {
		if peer == 0 {
			for id, ports := range named {
				for _, n := range ports[p.name] {
					do(match{id, portPrefix{p.proto, n, 16}})
				}
			}
			continue
		}
		for _, n := range named[peer][p.name] {
			do(match{peer, portPrefix{p.proto, n, 16}})
		}
	}
}

// resolve finds the identities and port blocks of a rule, once for all its subjects.
func (c *compiler) resolve(r *rule) *resolvedRule {
	if have, ok := c.resolved[r]; ok {
		return have
	}
	out := &resolvedRule{}
	if r.anyPeer {
		out.peers = []uint32{0}
	}
	for _, p := range r.peers {
		if p.pods != nil {
			out.peers = append(out.peers, c.index.resolve(p.pods, r.kind == RuleDeny)...)
		} else {
			out.peers = append(out.peers, c.cidrs.resolve(p.cidr, p.except)...)
		}
	}
	if len(r.peers) > 1 {
		slices.Sort(out.peers)
		out.peers = slices.Compact(out.peers)
	}
	if r.anyPort {
		out.ports = []portPrefix{{}}
	}
	for _, p := range r.ports {
		if p.name != "" {
			out.named = append(out.named, p)
		} else {
			out.ports = p.prefixes(out.ports)
		}
	}
	c.resolved[r] = out
	return out
}
