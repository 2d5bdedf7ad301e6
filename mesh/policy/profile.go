// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// profile is what subjects have in common that the same policies select, in one direction: their row and their lines.
type profile struct {
	key      string
	seq      uint64
	dir      Direction
	policies []*installed        // those with something to say about dir, in the order of their keys
	ports    map[string][]uint16 // the subjects' own named ports, if rules name any
	subjects map[*subject]struct{}

	base     Subject // without group and lines
	draft    []draftLine
	sets     []*set
	families []*family

	group   *group // nil: there was no room, see row
	row     Subject
	starved []string // keys of policies with rules that are closed, because no bit was left
}

// draftLine is a line with its set instead of the set's bit.
type draftLine struct {
	Line
	set    *set   // nil: everybody
	also   uint16 // SetOutside, if the line is about that part of the set
	policy *installed
	tier   Tier
}

// profileKey identifies the policies and ports of a profile.
func profileKey(dir Direction, policies []*installed, ports map[string][]uint16) string {
	key := make([]byte, 0, 1+8*len(policies))
	key = append(key, byte(dir))
	for _, p := range policies {
		key = binary.BigEndian.AppendUint64(key, p.seq)
	}
	var b strings.Builder
	b.Write(key)
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		b.WriteString("\x00" + name)
		for _, n := range ports[name] {
			b.WriteString("," + strconv.Itoa(int(n)))
		}
	}
	return b.String()
}

// listeningPorts are the named ports of a subject that ingress rules of the policies name.
func listeningPorts(policies []*installed, named map[string][]uint16) map[string][]uint16 {
	var out map[string][]uint16
	for _, p := range policies {
		for _, r := range p.model.dirs[Ingress].rules {
			for _, port := range r.ports {
				if numbers := named[port.name]; port.name != "" && len(numbers) > 0 {
					if out == nil {
						out = map[string][]uint16{}
					}
					out[port.name] = numbers
				}
			}
		}
	}
	return out
}

// draftProfile makes the lines of a profile, in terms of sets, and says what holds where none decides.
func (e *Engine) draftProfile(p *profile) {
	sets, families := p.sets, p.families
	p.draft, p.sets, p.families, p.base = nil, nil, nil, Subject{}
	e.draftTiers(p)
	for _, s := range p.sets {
		s.users[p] = struct{}{}
	}
	for _, f := range p.families {
		f.users[p] = struct{}{}
	}
	e.dropUses(p, sets, families)
	e.unfinished[p] = struct{}{}
}

func (l *draftLine) specificity() int {
	return specificity(l.set == nil, l.Proto, l.From, l.To)
}

// draftRule adds the lines of a rule: one for each of its ports.
func (e *Engine) draftRule(p *profile, pol *installed, r *rule, l Line) {
	var also uint16
	if r.outside {
		also = SetOutside
	}
	if r.anyPeer && r.kind.denies() && pol.model.dirs[p.dir].ownNode {
		own := *r
		own.anyPeer, own.peers = false, []peer{{entity: identity.Host}}
		own.identify()
		e.draftRule(p, pol, &own, l)
	}
	add := func(s *set, proto uint8, from, to uint16) {
		l.Proto, l.From, l.To = proto, from, to
		p.draft = append(p.draft, draftLine{Line: l, set: s, also: also, policy: pol, tier: pol.model.tier})
		if s != nil && !slices.Contains(p.sets, s) {
			p.sets = append(p.sets, s)
		}
	}
	var peers *set
	if !r.anyPeer {
		if len(r.peers) == 0 {
			return // nobody
		}
		peers = e.peerSet(pol.model.rec.Namespace, r)
	}
	if r.anyPort {
		add(peers, 0, 0, 0)
	}
	for _, port := range r.ports {
		switch {
		case port.name == "":
			from, to := port.span()
			add(peers, port.proto, from, to)
		case p.dir == Ingress:
			for _, n := range p.ports[port.name] {
				add(peers, port.proto, n, n)
			}
		case r.anyPeer || r.pods != "":
			f := e.family(r, port.name)
			if !slices.Contains(p.families, f) {
				p.families = append(p.families, f)
			}
			for _, n := range f.numbers() {
				add(e.familySet(pol.model.rec.Namespace, f, n), port.proto, n, n)
			}
		}
	}
}

// nameless is the number of a set that has none: nobody knows whom it means.
const nameless = SetCount

// finishProfile turns the draft into a group. A rule that has no bit is closed: its deny is about everybody (the own node as
// well, which it may name), its allow about nobody, and its pass denies everybody. Without room for the group all of the subject is closed.
func (e *Engine) finishProfile(p *profile) {
	old := p.group
	p.starved, p.base.Blocks = nil, false
	lines := make([]Line, 0, len(p.draft))
	seen := make(map[Line]struct{}, len(p.draft))
	first := 0 // how many lines Admin has
	var passes bool
	var tier Tier
	for _, d := range p.draft {
		l := d.Line
		if d.tier != tier {
			if tier == TierAdmin && passes {
				lines = endChunk(lines)
			}
			tier = d.tier
			clear(seen) // a pass may have skipped those of the tier before
		}
		if d.set != nil {
			l.Set = d.set.bit
			if l.Set != 0 {
				l.Set |= d.also
			}
			p.base.Blocks = p.base.Blocks || d.set.namesCIDRs()
			if l.Set == 0 && !slices.Contains(p.starved, d.policy.model.Key()) {
				p.starved = append(p.starved, d.policy.model.Key())
			}
			if l.Set == 0 {
				var stays bool
				if l.Verdict, stays = l.Verdict.forUnclearPeers(); !stays {
					continue
				}
				l.Set = nameless
			}
		}
		match := l
		match.Rule = 0
		if _, twice := seen[match]; twice {
			continue // of equal lines the first is blamed
		}
		seen[match] = struct{}{}
		lines = append(lines, l)
		if tier == TierAdmin {
			first = len(lines)
			passes = passes || l.Verdict == Pass || l.Verdict == AuditPass
		}
	}
	for i := range lines[:first] {
		if v := lines[i].Verdict; v == Pass || v == AuditPass {
			lines[i].Rule = uint32(chunks(lines[:first]))
		}
	}
	row := ClosedSubject(p.dir)
	var ok bool
	if p.group, ok = e.groups.get(p.base, lines); ok {
		row = p.base
		row.Group, row.Lines = p.group.id, uint32(len(lines))
	}
	if old != nil {
		e.groups.release(old)
	}
	if row != p.row {
		p.row = row
		for s := range p.subjects {
			e.pending[s] = struct{}{}
		}
	}
}
