// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// doubt says of which sets it is not known who is in them, because a row was refused that says so.
type doubt struct {
	reason string // empty: there is none
	// everything: nobody's identity is certain, so no subject may be open.
	everything bool
	sets       bpf.ClassSets
}

func allSets() (c bpf.ClassSets) {
	for i := range c.Sets {
		c.Sets[i] = ^uint64(0)
	}
	return c
}

// about says whether the doubt concerns one of the lines. Set 0 is everybody: nobody doubts who that is.
func (d doubt) about(lines []bpf.PolicyLine) bool {
	for _, l := range lines {
		set := l.Set &^ bpf.SetOutside
		if set != 0 && set < bpf.SetCount && d.sets.Sets[set/64]>>(set%64)&1 != 0 {
			return true
		}
	}
	return false
}

// Ranges is what the switch must know of the ranges' step.
type Ranges interface {
	Refusals() int
	// RefusedRows are the rows that the kernel refused.
	RefusedRows() map[netip.Prefix]bpf.Remote
}

// doubts collects what was refused.
func (s *Switch) doubts() doubt {
	var d doubt
	if s.ranges != nil && s.ranges.Refusals() > 0 {
		s.doubtRanges(&d)
	}
	if s.blocks.Refusals() > 0 {
		s.doubtBlocks(&d)
	}
	if s.addresses != nil && s.addresses.Refusals() > 0 {
		s.doubtAddresses(&d)
	}
	// A class has many sets, a set's name stands for its bit after a restart, and an identity that could neither get its
	// new class nor lose the old one may be in any: it is not worth telling apart what an array never refuses.
	if s.sets.Refusals()+s.classes.Refusals()+s.stale() > 0 {
		d.sets = allSets()
		d.reason = "who is in which set of peers is not written"
	}
	return d
}

// doubtRanges: an address in a refused range of the mesh would be the world's.
func (s *Switch) doubtRanges(d *doubt) {
	for prefix := range s.ranges.RefusedRows() {
		d.everything = true
		d.reason = "range " + prefix.String() + " of the mesh is not written"
		return
	}
}

// doubtBlocks: addresses in a CIDR that a policy names are taken for those of the wider CIDR around it, or of none, as long as
// its row is refused. So the sets that any CIDR is in are in doubt.
func (s *Switch) doubtBlocks(d *doubt) {
	for prefix := range s.blocks.RefusedRows() {
		d.reason = "CIDR " + prefix.String() + ", which a policy names, is not written"
		break
	}
	for i, word := range s.cidrs.sets().Sets {
		d.sets.Sets[i] |= word
	}
}

// Addresses is what the switch must know of the exact addresses' step.
type Addresses interface {
	Refusals() int
	RefusedRows() map[netip.Addr]bpf.Remote
}

// doubtAddresses: an address without its row is unknown where its range says so: dropped, or allowed by no line and denied by
// every one. Elsewhere it is the world's, and the sets that it should be in miss it.
func (s *Switch) doubtAddresses(d *doubt) {
	var closed []netip.Prefix
	for row := range s.tables.Ranges.All() {
		if row.Value.Identity == identity.Unknown && row.Value.Flags&bpf.RemoteService == 0 {
			closed = append(closed, row.Key)
		}
	}
	for addr := range s.addresses.RefusedRows() {
		if !slices.ContainsFunc(closed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			d.sets = allSets()
			d.reason = "address " + addr.String() + " is not written, and would count as the world's"
			return
		}
	}
}

// cidrs keeps the identities of the CIDRs that policies name, and the classes they are in.
type cidrs struct {
	tables  *table.Tables
	changes *table.Changes[uint32, bpf.IdentityClass]
	class   map[uint32]uint32
}

func newCIDRs(t *table.Tables) *cidrs {
	return &cidrs{tables: t, changes: t.Members.Changes(), class: map[uint32]uint32{}}
}

func (c *cidrs) learn() {
	changes, _ := c.changes.Next()
	for _, m := range changes {
		switch {
		case !identity.IsCIDR(m.Key):
		case m.Deleted:
			delete(c.class, m.Key)
		default:
			c.class[m.Key] = m.Value.Class
		}
	}
}

// sets are those that a CIDR is in.
func (c *cidrs) sets() (out bpf.ClassSets) {
	for _, class := range c.class {
		row, ok := c.tables.Classes.Get(class)
		if !ok {
			return allSets()
		}
		for i, word := range row.Value.Sets {
			out.Sets[i] |= word
		}
	}
	return out
}
