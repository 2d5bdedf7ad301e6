// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// class is a row of fl_classes: identities that are in the same peer sets.
type class struct {
	id      uint32
	base    uint8
	bits    Bitmap
	members []*ident
	dirty   bool
	isNew   bool // made in this stage

	stamp uint64   // of the last assign that met it
	hits  []*ident // members of the set that is being assigned
}

// classKey identifies a class by content. Pods of different clusters have classes of their own even where no set
// separates them yet: a selector of clusters then changes a row for each class, and moves no identity.
type classKey struct {
	base uint8
	bits Bitmap
}

// classes gives identities their classes, and keeps as few as there are different contents.
type classes struct {
	pool      *pool
	rows      []*class // by id; nil: unused
	byContent map[classKey]*class
	twins     []*class // with the content of another class, which a restart left
	stamp     uint64
	forget    *bool

	limit  int // of identities with a class
	placed int
	eased  bool   // since place failed last, it may succeed
	freed  uint64 // how many were, from 1 on

	touched []*class // dirty ones
	moved   []*ident // with another class than before, or none
}

func newClasses(l Limits, forget *bool) *classes {
	return &classes{
		rows: make([]*class, max(l.Classes, 1)), byContent: map[classKey]*class{}, forget: forget, limit: l.Identities, freed: 1,
	}
}

// restore enters a class that the kernel holds. Its members follow by join.
func (c *classes) restore(id uint32, base uint8, bits Bitmap) *class {
	cl := &class{id: id, base: base, bits: bits}
	c.rows[id] = cl
	if _, twin := c.byContent[cl.key()]; twin {
		c.twins = append(c.twins, cl)
	} else {
		c.byContent[cl.key()] = cl
	}
	return cl
}

func (cl *class) key() classKey { return classKey{cl.base, cl.bits} }

func baseOf(id uint32) uint8 { return identity.ClusterOf(id) }

// place gives an identity the class of a content, or none if there is no room.
func (c *classes) place(i *ident, bits Bitmap) bool {
	if i.class == nil && c.placed >= c.limit {
		return false
	}
	cl := c.of(classKey{baseOf(i.id), bits})
	if cl == nil {
		return false
	}
	c.leave(i)
	c.join(i, cl)
	return true
}

// of returns the class of a content; nil if there is no room for another one.
func (c *classes) of(k classKey) *class {
	if cl := c.byContent[k]; cl != nil {
		return cl
	}
	id, ok := c.pool.take(c.forget)
	if !ok {
		return nil
	}
	cl := &class{id: id, base: k.base, bits: k.bits, isNew: true}
	c.rows[id] = cl
	c.byContent[k] = cl
	c.touch(cl)
	return cl
}

func (c *classes) join(i *ident, cl *class) {
	i.class, i.pos = cl, len(cl.members)
	cl.members = append(cl.members, i)
	c.placed++
	c.move(i)
}

// leave takes an identity out of its class, and frees a class that has no other.
func (c *classes) leave(i *ident) {
	cl := i.class
	if cl == nil {
		return
	}
	last := len(cl.members) - 1
	cl.members[i.pos] = cl.members[last]
	cl.members[i.pos].pos = i.pos
	cl.members[last] = nil
	cl.members = cl.members[:last]
	i.class = nil
	c.placed--
	c.eased = true
	c.move(i)
	if last == 0 {
		c.free(cl)
	}
}

func (c *classes) free(cl *class) {
	if c.byContent[cl.key()] == cl {
		delete(c.byContent, cl.key())
	}
	c.rows[cl.id] = nil
	c.freed++
	c.pool.give(cl.id)
	c.touch(cl)
}

func (c *classes) touch(cl *class) {
	if !cl.dirty {
		cl.dirty = true
		c.touched = append(c.touched, cl)
	}
}

func (c *classes) move(i *ident) {
	if !i.moved {
		i.moved = true
		c.moved = append(c.moved, i)
	}
}

// assign sets a bit that nobody has in the classes of a set's members. Classes with others besides are split; the smaller
// part gets another class, or none if there is no room.
func (c *classes) assign(bit uint16, members []*ident) (homeless []*ident) {
	c.stamp++
	var met []*class
	for _, i := range members {
		cl := i.class
		if cl == nil {
			continue
		}
		if cl.stamp != c.stamp {
			cl.stamp, cl.hits = c.stamp, cl.hits[:0]
			met = append(met, cl)
		}
		i.stamp = c.stamp
		cl.hits = append(cl.hits, i)
	}
	for _, cl := range met {
		hits := cl.hits
		cl.hits = nil
		switch {
		case len(hits) == len(cl.members):
			c.alter(cl, func(b *Bitmap) { b.add(bit) })
		case len(hits)*2 <= len(cl.members):
			with := cl.key()
			with.bits.add(bit)
			homeless = append(homeless, c.split(hits, with)...)
		default:
			rest := make([]*ident, 0, len(cl.members)-len(hits))
			for _, i := range cl.members {
				if i.stamp != c.stamp {
					rest = append(rest, i)
				}
			}
			without := cl.key()
			c.alter(cl, func(b *Bitmap) { b.add(bit) })
			homeless = append(homeless, c.split(rest, without)...)
		}
	}
	return homeless
}

// split moves identities to the class of a content.
func (c *classes) split(part []*ident, to classKey) (homeless []*ident) {
	target := c.of(to)
	for _, i := range part {
		c.leave(i)
		if target != nil {
			c.join(i, target)
		} else {
			homeless = append(homeless, i)
		}
	}
	return homeless
}

// alter changes a class in place, and joins it with another one that has the same content then.
func (c *classes) alter(cl *class, change func(*Bitmap)) {
	if c.byContent[cl.key()] == cl {
		delete(c.byContent, cl.key())
	}
	change(&cl.bits)
	c.eased = true
	c.touch(cl)
	c.unite(cl)
}

func (c *classes) unite(cl *class) {
	other := c.byContent[cl.key()]
	if other == nil || other == cl {
		c.byContent[cl.key()] = cl
		return
	}
	if len(other.members) < len(cl.members) {
		c.byContent[cl.key()] = cl
		cl, other = other, cl
	}
	for _, i := range slices.Clone(cl.members) {
		c.leave(i)
		c.join(i, other)
	}
}

// clear takes bits that nothing refers to out of all classes.
func (c *classes) clear(mask *Bitmap) {
	for _, cl := range c.rows {
		if cl == nil {
			continue
		}
		bits := cl.bits
		for n, m := range mask {
			bits[n] &^= m
		}
		if bits != cl.bits {
			c.alter(cl, func(b *Bitmap) { *b = bits })
		}
	}
	for _, cl := range c.twins {
		if c.rows[cl.id] == cl {
			c.unite(cl)
		}
	}
	c.twins = nil
}
