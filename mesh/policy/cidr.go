// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// cidrs are all CIDRs that policies name, each with an identity of its own. The datapath finds an address's identity by
// the longest prefix, so a rule about a CIDR must also hold for the CIDRs within it.
type cidrs struct {
	sorted []netip.Prefix // those within a prefix follow it
	ids    map[netip.Prefix]uint32
}

// maxCIDR is how many CIDRs can have identities: what fits below CIDRBit.
const maxCIDR = 1<<24 - 1

var (
	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// newCIDRs collects the CIDRs of all policies. Known ones keep their identity; a new one gets the lowest that no CIDR
// has or just had.
func newCIDRs(models []*model, previous map[netip.Prefix]uint32) (*cidrs, error) {
	c := &cidrs{ids: map[netip.Prefix]uint32{}}
	for _, m := range models {
		for _, d := range m.dirs {
			if d == nil {
				continue
			}
			for i := range d.rules {
				for _, p := range d.rules[i].peers {
					c.note(p)
				}
			}
		}
	}
	for p := range c.ids {
		c.sorted = append(c.sorted, p)
	}
	slices.SortFunc(c.sorted, comparePrefixes)
	return c, c.number(previous)
}

func (c *cidrs) note(p peer) {
	if p.pods != nil {
		return
	}
	c.ids[p.cidr] = 0
	for _, e := range p.except {
		c.ids[e] = 0
	}
	if p.cidr.Bits() == 0 {
		// A rule about all of one family also covers World (see resolve), which must then not be the identity of the other
		// family's addresses.
		c.ids[all4], c.ids[all6] = 0, 0
	}
}

func (c *cidrs) number(previous map[netip.Prefix]uint32) error {
	taken := make(map[uint32]struct{}, len(previous))
	for _, id := range previous {
		taken[id] = struct{}{}
	}
	used := make(map[uint32]struct{}, len(c.sorted))
	for _, p := range c.sorted {
		id, ok := previous[p]
		if _, twice := used[id]; ok && !twice && identity.IsCIDR(id) && id != identity.CIDRBit {
			c.ids[p] = id
			used[id] = struct{}{}
		}
	}
	next := identity.CIDRBit + 1
	for _, p := range c.sorted {
		if c.ids[p] != 0 {
			continue
		}
		for {
			if next > identity.CIDRBit+maxCIDR {
				return fmt.Errorf("policies name more than %d CIDRs", maxCIDR)
			}
			_, had := taken[next]
			_, has := used[next]
			if !had && !has {
				break
			}
			next++
		}
		c.ids[p] = next
		next++
	}
	return nil
}

// resolve returns the identities of the addresses in a CIDR that are not in except.
func (c *cidrs) resolve(cidr netip.Prefix, except []netip.Prefix) []uint32 {
	var out []uint32
	first := sort.Search(len(c.sorted), func(i int) bool { return comparePrefixes(c.sorted[i], cidr) >= 0 })
	for _, p := range c.sorted[first:] {
		if !covers(cidr, p) {
			break
		}
		if !slices.ContainsFunc(except, func(e netip.Prefix) bool { return covers(e, p) }) {
			out = append(out, c.ids[p])
		}
	}
	if cidr.Bits() == 0 {
		out = append(out, identity.World)
	}
	return out
}

// covers says whether a contains b.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
