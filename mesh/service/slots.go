// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"
)

// settle brings the slots in line with what changed and says whether their number did. Without a switch between tiers it
// costs the members that changed; a switch costs the group.
func (g *group) settle(d *Delta) (resized bool) {
	if g.whole {
		g.touched = g.members
	}
	if len(g.touched) == 0 && len(g.before) == 0 {
		return false
	}
	for _, m := range g.touched {
		if m.tier != noTier {
			g.counts[m.tier]--
		}
		if m.tier = g.judge(m); m.tier != noTier {
			g.counts[m.tier]++
		}
	}
	if chosen := g.choose(); chosen != g.chosen {
		g.chosen = chosen
		for at, m := range g.members {
			if !g.whole && g.chosen.has(m.tier) != (m.slot >= 0) {
				g.touch(at, m)
			}
		}
	}
	g.place()
	for at, m := range g.touched {
		if len(m.from) == 0 {
			delete(g.members, at)
		}
	}
	g.touched, g.whole = nil, false
	return g.emit(d)
}

// place gives slots to the touched members that are chosen and takes those of the others.
func (g *group) place() {
	holes, fresh := g.holes, []netip.AddrPort(nil)
	g.holes = nil
	for at, m := range g.touched {
		switch chosen := g.chosen.has(m.tier); {
		case chosen && m.slot < 0:
			fresh = append(fresh, at)
		case !chosen && m.slot >= 0:
			holes = append(holes, uint32(m.slot))
			g.write(uint32(m.slot), netip.AddrPort{})
			m.slot = -1
		}
	}
	slices.Sort(holes)
	slices.SortFunc(fresh, netip.AddrPort.Compare)
	for _, at := range fresh {
		slot := uint32(len(g.slots))
		if len(holes) > 0 {
			slot, holes = holes[0], holes[1:]
		}
		g.write(slot, at)
		g.members[at].slot = int32(slot)
	}
	for _, hole := range holes {
		g.fill(hole)
	}
}

// fill gives an empty slot to the last backend. Holes must be filled from the lowest on.
func (g *group) fill(hole uint32) {
	for len(g.slots) > 0 && !g.slots[len(g.slots)-1].IsValid() {
		g.slots = g.slots[:len(g.slots)-1]
	}
	last := uint32(len(g.slots)) - 1
	if int(hole) >= len(g.slots) {
		return
	}
	at := g.slots[last]
	g.write(hole, at)
	g.write(last, netip.AddrPort{})
	g.members[at].slot = int32(hole)
	g.slots = g.slots[:last]
}

// write sets a slot, or the one after the last, and remembers what the last Delta said of it.
func (g *group) write(slot uint32, at netip.AddrPort) {
	if int(slot) == len(g.slots) {
		g.slots = append(g.slots, netip.AddrPort{})
	}
	if _, noted := g.before[slot]; !noted && int(slot) < g.emitted {
		if g.before == nil {
			g.before = map[uint32]netip.AddrPort{}
		}
		g.before[slot] = g.slots[slot]
	}
	g.slots[slot] = at
}

// emit adds the slots that differ from the last Delta.
func (g *group) emit(d *Delta) (resized bool) {
	for slot, was := range g.before {
		var now netip.AddrPort
		if int(slot) < len(g.slots) {
			now = g.slots[slot]
		}
		if was != now {
			d.Slots[SlotKey{g.id, slot}] = now
		}
	}
	for slot := g.emitted; slot < len(g.slots); slot++ {
		d.Slots[SlotKey{g.id, uint32(slot)}] = g.slots[slot]
	}
	g.before = nil
	resized = len(g.slots) != g.emitted
	g.emitted = len(g.slots)
	return resized
}

// clear empties a group that is gone.
func (g *group) clear(d *Delta) {
	for slot := range g.slots {
		d.Slots[SlotKey{g.id, uint32(slot)}] = netip.AddrPort{}
	}
}

// replaces says whether this group is what became of another one.
func (g *group) replaces(o *group) bool {
	return o.v4 == g.v4 && o.local == g.local && o.port.Protocol == g.port.Protocol && o.port.Number == g.port.Number
}
