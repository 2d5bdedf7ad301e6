// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// cidrs are all CIDRs that sets in use name, each with an identity of its own. The datapath finds the narrowest of them around
// an address, so a set about a CIDR also holds the identities of the CIDRs within it. An address is in the sets of its CIDR
// and in those of who has it: a pod, a node.
type cidrs struct {
	limit    int
	byPrefix bart.Table[*cidr]
	inUse    map[uint32]struct{}
	last     uint32         // identity that was given out last
	idle     []netip.Prefix // that may have no user any more
	fresh    []*cidr        // without rows
}

type cidr struct {
	*ident
	prefix netip.Prefix
	refs   int // sets that name it
}

// maxCIDR is how many CIDRs can have identities: what fits below CIDRBit.
const maxCIDR = 1<<24 - 1

// newCIDRs has room for that many CIDRs; 0: for all that can have an identity.
func newCIDRs(limit int) *cidrs {
	if limit <= 0 || limit > maxCIDR {
		limit = maxCIDR
	}
	return &cidrs{limit: limit, inUse: map[uint32]struct{}{}}
}

// prefixes of a set's peers.
func prefixes(peers []peer) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range peers {
		if !p.isCIDR() {
			continue
		}
		out = append(append(out, p.cidr), p.except...)
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

// restore enters a CIDR that the kernel has an identity for.
func (c *cidrs) restore(p netip.Prefix, i *ident) {
	i.cidr = &cidr{ident: i, prefix: p}
	c.byPrefix.Insert(p, i.cidr)
	c.inUse[i.id] = struct{}{}
	c.idle = append(c.idle, p)
}

// room says whether all of some prefixes can have identities.
func (c *cidrs) room(list []netip.Prefix) bool {
	fresh := 0
	for _, p := range list {
		if _, have := c.byPrefix.Get(p); !have {
			fresh++
		}
	}
	return fresh == 0 || len(c.inUse)+fresh <= c.limit
}

// use counts a user of a prefix. A new one gets an identity that no CIDR has or just had.
func (c *cidrs) use(p netip.Prefix) (used *cidr, isNew bool) {
	if have, ok := c.byPrefix.Get(p); ok {
		have.refs++
		return have, false
	}
	for {
		c.last = c.last%maxCIDR + 1
		if _, taken := c.inUse[identity.CIDRBit|c.last]; !taken {
			break
		}
	}
	used = &cidr{ident: &ident{id: identity.CIDRBit | c.last}, prefix: p, refs: 1}
	used.cidr = used
	c.inUse[used.id] = struct{}{}
	c.byPrefix.Insert(p, used)
	return used, true
}

func (c *cidrs) release(p netip.Prefix) {
	n, _ := c.byPrefix.Get(p)
	n.refs--
	if n.refs == 0 {
		c.idle = append(c.idle, p)
	}
}

// sweep removes and returns the CIDRs that no set names any more.
func (c *cidrs) sweep() []*cidr {
	var out []*cidr
	for _, p := range c.idle {
		n, have := c.byPrefix.Get(p)
		if !have || n.refs > 0 {
			continue
		}
		c.byPrefix.Delete(p)
		delete(c.inUse, n.id)
		out = append(out, n)
	}
	c.idle = nil
	return out
}

// within returns the CIDRs in a prefix, itself included, that are not in except. Wider ones come before those in them.
func (c *cidrs) within(prefix netip.Prefix, except []netip.Prefix) []*ident {
	var out []*ident
	for p, n := range c.byPrefix.Subnets(prefix) {
		if !slices.ContainsFunc(except, func(e netip.Prefix) bool { return covers(e, p) }) {
			out = append(out, n.ident)
		}
	}
	return out
}

// covers says whether a contains b.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// useCIDRs counts a set among the users of its CIDRs, for which there must be room.
func (e *Engine) useCIDRs(s *set) {
	for _, p := range prefixes(s.peers) {
		if c, isNew := e.cidrs.use(p); isNew {
			e.cidrs.fresh = append(e.cidrs.fresh, c)
		}
	}
}

func (e *Engine) releaseCIDRs(s *set) {
	for _, p := range prefixes(s.peers) {
		e.cidrs.release(p)
	}
}

// placeCIDRs gives new CIDRs their identities' rows, and then the addresses these identities. A bit that is in force and
// that no set has taken over since a restart (those in e.freeing) goes on meaning these addresses as it did: what it was
// about is not known, but its CIDRs had identities of their own, so all addresses of one identity were on the same side.
func (e *Engine) placeCIDRs(d *Delta) {
	var orphans Bitmap
	for _, bit := range e.freeing {
		orphans.add(bit)
	}
	slices.SortFunc(e.cidrs.fresh, func(a, b *cidr) int { return cmp.Compare(a.prefix.Bits(), b.prefix.Bits()) })
	for _, c := range e.cidrs.fresh {
		id, bits, wider := c.id, e.bitsOf(c.ident), e.around(c.prefix)
		d.Before.CIDRs[c.prefix] = &id
		switch {
		case orphans == (Bitmap{}):
			e.place(c.ident, bits)
		case wider == nil: // no orphan is about these addresses
			e.place(c.ident, bits)
		case wider.class == nil: // had no room: these addresses are dropped until the switch, as before
			e.arrived[c.ident] = struct{}{}
		default:
			for n := range bits {
				bits[n] |= wider.class.bits[n] & orphans[n]
			}
			e.place(c.ident, bits)
		}
	}
	e.cidrs.fresh = nil
}

// around returns the identity of the narrowest CIDR around another one; nil if there is none.
func (e *Engine) around(p netip.Prefix) *ident {
	for at, wider := range e.cidrs.byPrefix.Supernets(p) { // the narrowest first
		if at != p {
			return wider.ident
		}
	}
	return nil
}

// sweepCIDRs takes back the identities of CIDRs that no set names any more: first the addresses', then their rows.
func (e *Engine) sweepCIDRs(d *Delta) {
	for _, c := range e.cidrs.sweep() {
		d.After.CIDRs[c.prefix] = nil
		e.forgetIdentity(c.ident)
	}
}
