// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

// place gives an identity the class of its sets; without room it waits.
func (e *Engine) place(i *ident, sets Bitmap) {
	if e.classes.place(i, sets) {
		delete(e.waiting, i)
	} else {
		e.waiting[i] = struct{}{}
	}
}

// placeArrived places new identities, and those that wait if there may be room.
func (e *Engine) placeArrived() {
	retry := e.classes.eased && len(e.waiting) > 0
	for _, i := range ascending(e.arrived) {
		e.place(i, e.bitsOf(i))
	}
	clear(e.arrived)
	if retry {
		for _, i := range ascending(e.waiting) {
			e.place(i, e.bitsOf(i))
		}
	}
	e.classes.eased = false
}

// flush hands over the rows of classes and identities that changed. A class that is new is written before the switch in any
// case. One that is free keeps its row: a packet may have read its number a moment ago.
func (e *Engine) flush(d *Delta, rows *Rows, after bool) {
	c := e.classes
	for _, cl := range c.touched {
		cl.dirty = false
		bits := cl.bits
		switch {
		case c.rows[cl.id] != cl: // free
		case after && cl.isNew:
			d.Before.Classes[cl.id] = &bits
		default:
			rows.Classes[cl.id] = &bits
		}
		cl.isNew = false
	}
	c.touched = c.touched[:0]
	for _, i := range c.moved {
		i.moved = false
		switch {
		case i.class == nil && i.hasRow:
			rows.Identities[i.id] = nil
			i.hasRow = false
			e.gone[i.id] = struct{}{}
		case i.class != nil && (!i.hasRow || i.row != i.class.id):
			id := i.class.id
			rows.Identities[i.id] = &id
			i.hasRow, i.row = true, id
			if _, back := e.gone[i.id]; back {
				d.Switch = true // flows may remember the class it had
			}
		}
	}
	c.moved = c.moved[:0]
	if !e.started && after {
		e.flushStrays(d)
	}
}

// strays are rows that the kernel held at the start and that mean nothing.
type strays struct {
	sets  []uint16
	cidrs []*cidr
}

func (e *Engine) flushStrays(d *Delta) {
	for _, bit := range e.strays.sets {
		if _, taken := d.Before.Sets[bit]; !taken {
			d.After.Sets[bit] = 0
		}
	}
	for _, c := range e.strays.cidrs {
		if _, inUse := e.cidrs.byPrefix.Get(c.prefix); !inUse {
			d.After.CIDRs[c.prefix] = nil
		}
	}
	e.strays = strays{}
}
