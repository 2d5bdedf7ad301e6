// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// group is the backends of one port and address family of a service, in slots. All frontends of that port and family lead
// to it.
type group struct {
	planner  *Planner
	id       uint32
	port     record.Port
	v4       bool
	affinity record.Affinity
	local    bool                   // of addresses that lead to the local cluster's backends alone
	serves   map[string]record.Port // cluster → name and protocol of its port that stands for ours

	members map[netip.AddrPort]*member
	counts  [tiers]int
	chosen  tierSet // whose members are in slots
	shared  int     // members that several clusters claim

	slots   []netip.AddrPort // an invalid one is empty, which lasts only until settle
	holes   []uint32         // empty slots that were remembered
	whole   bool             // made since the last Delta, so that every member is touched
	touched map[netip.AddrPort]*member
	before  map[uint32]netip.AddrPort // what slots written since the last Delta held then
	emitted int                       // number of slots in the last Delta
}

// tier orders members by how new connections choose among them.
type tier int8

const (
	noTier tier = iota - 1
	readyLocal
	readyRemote
	drainingLocal
	drainingRemote
	tiers = iota - 1
)

// tierSet has bit t set for each tier t in it.
type tierSet uint8

func (s tierSet) has(t tier) bool { return t != noTier && s&(1<<t) != 0 }

// member is a place that slices name. Nearly always one slice names it once.
type member struct {
	from []contribution
	one  [1]contribution // room for from, without an allocation of its own
	tier tier
	slot int32 // -1: in none
}

// contribution is what one slice says of a member: how often it names it in each state.
type contribution struct {
	slice *sliceState
	times [ready + 1]uint16
}

func newMember(slot int32) *member {
	m := &member{tier: noTier, slot: slot}
	m.from = m.one[:0]
	return m
}

func newGroup(p *Planner, port record.Port, v4 bool, affinity record.Affinity, serves map[string]record.Port, size int) *group {
	return &group{
		planner: p, port: port, v4: v4, affinity: affinity, serves: serves, whole: true,
		members: make(map[netip.AddrPort]*member, size),
	}
}

// remember puts the backends of an earlier group into their slots, before any slice says that they exist. They leave at
// settle unless one does. emitted is how many of the slots this planner's deltas had.
func (g *group) remember(slots []netip.AddrPort, emitted int) {
	g.slots, g.emitted = slices.Clone(slots), emitted
	for i, at := range g.slots {
		if at.IsValid() && g.members[at] == nil {
			m := newMember(int32(i))
			g.members[at] = m
			g.touch(at, m)
			continue
		}
		g.write(uint32(i), netip.AddrPort{})
		g.holes = append(g.holes, uint32(i))
	}
}

func (g *group) touch(at netip.AddrPort, m *member) {
	if g.whole {
		return
	}
	if g.touched == nil {
		g.touched = map[netip.AddrPort]*member{}
	}
	g.touched[at] = m
}

// replace changes what a slice says. Backends that both versions begin or end with alike are passed over.
func (g *group) replace(sl *sliceState, port record.Port, old, fresh *record.Slice) {
	oldTarget, freshTarget := g.target(old, port), g.target(fresh, port)
	var was, now []record.Backend
	if oldTarget != 0 {
		was = old.Backends
	}
	if freshTarget != 0 {
		now = fresh.Backends
	}
	if oldTarget == freshTarget {
		for len(was) > 0 && len(now) > 0 && same(was[0], now[0]) {
			was, now = was[1:], now[1:]
		}
		for len(was) > 0 && len(now) > 0 && same(was[len(was)-1], now[len(now)-1]) {
			was, now = was[:len(was)-1], now[:len(now)-1]
		}
	}
	for i := range now {
		g.count(sl, &now[i], freshTarget, +1)
	}
	for i := range was {
		g.count(sl, &was[i], oldTarget, -1)
	}
}

func (g *group) target(s *record.Slice, port record.Port) uint16 {
	if s == nil {
		return 0
	}
	return targetPort(s.Ports, port.Name, port.Protocol)
}

// same compares what slots depend on.
func same(a, b record.Backend) bool { return a.Addr == b.Addr && stateOf(&a) == stateOf(&b) }

// count adds to how often a slice names a place in a state.
func (g *group) count(sl *sliceState, b *record.Backend, port uint16, n int) {
	if b.Addr.Is4() != g.v4 {
		return
	}
	at := netip.AddrPortFrom(b.Addr, port)
	m := g.members[at]
	if m == nil {
		m = newMember(-1)
		g.members[at] = m
	}
	shared := m.clusters() > 1
	i := slices.IndexFunc(m.from, func(c contribution) bool { return c.slice == sl })
	if i < 0 {
		i = len(m.from)
		m.from = append(m.from, contribution{slice: sl})
	}
	m.from[i].times[stateOf(b)] = uint16(int(m.from[i].times[stateOf(b)]) + n)
	if m.from[i].times == ([ready + 1]uint16{}) {
		m.from = slices.Delete(m.from, i, i+1)
	}
	if now := m.clusters() > 1; now != shared && now {
		g.shared++
	} else if now != shared {
		g.shared--
	}
	g.touch(at, m)
}

// clusters counts who claims a member, up to 2.
func (m *member) clusters() int {
	for i := 1; i < len(m.from); i++ {
		if m.from[i].slice.cluster != m.from[0].slice.cluster {
			return 2
		}
	}
	return min(len(m.from), 1)
}

// judge finds a member's tier: the first cluster that claims it has it, and of what that cluster says the best counts.
func (g *group) judge(m *member) tier {
	if len(m.from) == 0 {
		return noTier
	}
	owner, best := m.from[0].slice.cluster, unusable
	for _, c := range m.from {
		if by := g.planner.compareClusters(c.slice.cluster, owner); by < 0 {
			owner, best = c.slice.cluster, unusable
		} else if by > 0 {
			continue
		}
		for s := draining; s <= ready; s++ {
			if c.times[s] > 0 {
				best = max(best, s)
			}
		}
	}
	local := owner == g.planner.cfg.Cluster
	switch {
	case best == ready && local:
		return readyLocal
	case best == ready:
		return readyRemote
	case best == draining && local:
		return drainingLocal
	case best == draining:
		return drainingRemote
	}
	return noTier
}

// choose says which tiers new connections go to; see pool.choose for the reasons.
func (g *group) choose() tierSet {
	for _, local := range []tier{readyLocal, drainingLocal} {
		remote := local + 1
		first, second := local, remote
		switch g.affinity {
		case record.AffinityRemote:
			first, second = remote, local
		case record.AffinityLocal:
		default:
			if g.counts[local]+g.counts[remote] > 0 {
				return 1<<local | 1<<remote
			}
			continue
		}
		if g.counts[first] > 0 {
			return 1 << first
		}
		if g.counts[second] > 0 {
			return 1 << second
		}
	}
	return 0
}

// clashes describes at most that many members that several clusters claim.
func (g *group) clashes(most int) []string {
	var out []string
	if g.shared == 0 || most <= 0 {
		return nil
	}
	for at, m := range g.members {
		if m.clusters() < 2 {
			continue
		}
		owner, other := m.from[0].slice.cluster, m.from[0].slice.cluster
		for _, c := range m.from {
			if g.planner.compareClusters(c.slice.cluster, owner) < 0 {
				owner = c.slice.cluster
			}
			if g.planner.compareClusters(c.slice.cluster, other) > 0 {
				other = c.slice.cluster
			}
		}
		if out = append(out, clash(owner, other, at)); len(out) == most {
			break
		}
	}
	return out
}
