// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import "net/netip"

// claims records who owns which prefix, and refuses a claim that overlaps another owner's. Two prefixes overlap only if
// one contains the other, so it is enough to look a prefix up at each length in use: a claim costs that many map
// lookups (two or three in practice) however many claims there are.
type claims struct {
	used4, used6 [129]bool
	owners       map[netip.Prefix]string // accepted claims
	within       map[netip.Prefix]string // prefix, shorter than an accepted claim inside it → who claimed so first
}

func newClaims() claims {
	return claims{owners: map[netip.Prefix]string{}, within: map[netip.Prefix]string{}}
}

// announce must be called with all prefixes before the first is claimed.
func (c *claims) announce(prefixes []netip.Prefix) {
	for _, p := range prefixes {
		c.used(p)[p.Bits()] = true
	}
}

func (c *claims) used(p netip.Prefix) *[129]bool {
	if p.Addr().Is4() {
		return &c.used4
	}
	return &c.used6
}

// claim gives a prefix to an owner. If it overlaps with an accepted claim nothing changes, and the owner of that claim
// comes back; it may be the same owner, who has what it asked for already.
func (c *claims) claim(p netip.Prefix, owner string) (other string, ok bool) {
	used := c.used(p)
	for bits := 0; bits <= p.Bits(); bits++ {
		if !used[bits] {
			continue
		}
		if other, taken := c.owners[shorten(p, bits)]; taken {
			return other, false
		}
	}
	if other, taken := c.within[p]; taken {
		return other, false
	}
	c.owners[p] = owner
	for bits := range p.Bits() {
		if !used[bits] {
			continue
		}
		if outer := shorten(p, bits); c.within[outer] == "" {
			c.within[outer] = owner
		}
	}
	return "", true
}
