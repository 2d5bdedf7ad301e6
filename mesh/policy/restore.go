// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// restore starts from what the kernel holds. In force, and so to be left alone until the first switch, is what its subjects
// refer to: their groups, the bits in these, and what the classes say about these bits. All other bits are free, whatever
// an interrupted writer left in them.
func (e *Engine) restore(r *Remembered) {
	e.unsure = len(r.Identities)+len(r.Groups)+len(r.Subjects) > 0
	maps.Copy(e.rows, r.Subjects)
	var inForce Bitmap
	for _, s := range r.Subjects {
		for _, l := range r.Groups[s.Group] {
			if set := l.Set &^ SetOutside; set > 0 && set < SetCount {
				inForce.add(set)
			}
		}
	}
	e.groups = newGroups(e.limits.Chunks, r.Groups)
	e.restoreBits(r.Sets, &inForce)
	e.restoreIdentities(r, &inForce)
	e.restoreCIDRs(r.CIDRs)
}

func (e *Engine) restoreBits(names map[uint16]uint64, inForce *Bitmap) {
	e.bits = newPool(e.limits.Sets, func(n uint32) bool { return inForce.Has(uint16(n)) })
	for bit := uint16(1); bit < SetCount; bit++ {
		name := names[bit]
		_, twice := e.adopt[name]
		switch {
		case !inForce.Has(bit) && name != 0:
			e.strays.sets = append(e.strays.sets, bit)
		case !inForce.Has(bit):
		case name == 0 || twice || int(bit) >= e.limits.Sets:
			e.freeing = append(e.freeing, bit)
		default:
			e.adopt[name] = bit
		}
	}
}

func (e *Engine) restoreIdentities(r *Remembered, inForce *Bitmap) {
	e.classes = newClasses(e.limits, &e.forget)
	c := e.classes
	for _, id := range sortedKeys(r.Identities) {
		row := r.Identities[id]
		i := &ident{id: id, row: row, hasRow: true}
		e.ghosts[id] = i
		if row == 0 || int(row) >= len(c.rows) {
			c.move(i)
			continue
		}
		cl := c.rows[row]
		if cl == nil {
			have := r.Classes[row]
			bits := have
			for n := range bits {
				bits[n] &= inForce[n]
			}
			cl = c.restore(row, baseOf(id), bits)
			if bits != have {
				c.touch(cl)
			}
		}
		c.join(i, cl)
	}
	c.pool = newPool(e.limits.Classes, func(n uint32) bool { return c.rows[n] != nil })
	for id, own := range map[uint32]**ident{identity.World: &e.world, identity.RemoteNode: &e.remoteNode, identity.Host: &e.host} {
		if i := e.ghosts[id]; i != nil {
			*own = i
			delete(e.ghosts, id)
		}
		e.note(*own)
	}
}

// note has an identity placed, or its sets compared with those of its class.
func (e *Engine) note(i *ident) {
	if i.class != nil {
		e.changed[i] = struct{}{}
	} else {
		e.arrived[i] = struct{}{}
	}
}

func (e *Engine) restoreCIDRs(held map[netip.Prefix]uint32) {
	taken := map[uint32]struct{}{}
	for _, p := range slices.SortedFunc(maps.Keys(held), comparePrefixes) {
		id := held[p]
		_, twice := taken[id]
		if twice || !identity.IsCIDR(id) || id == identity.CIDRBit || id > identity.CIDRBit+maxCIDR || p != p.Masked() {
			e.strays.cidrs = append(e.strays.cidrs, &cidr{prefix: p})
			continue
		}
		taken[id] = struct{}{}
		i := e.ghosts[id]
		if i == nil {
			i = &ident{id: id}
		}
		delete(e.ghosts, id)
		e.cidrs.restore(p, i)
		e.note(i)
	}
}
