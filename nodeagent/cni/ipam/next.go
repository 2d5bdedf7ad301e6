// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package ipam

import "net/netip"

// next finds the first free address after last, going round through all
// ranges. An address is thus reused as late as possible: identities and
// connections of the pod that had it are long forgotten.
func next(ranges []netip.Prefix, last netip.Addr, used func(netip.Addr) bool) (netip.Addr, bool) {
	start := 0
	for i, r := range ranges {
		if last.IsValid() && r.Contains(last) {
			start = i
		}
	}
	// The range of last is visited twice: after last, and at the end up to it.
	for i := 0; i <= len(ranges); i++ {
		r := ranges[(start+i)%len(ranges)].Masked()
		from := first(r)
		if i == 0 && last.IsValid() && r.Contains(last) {
			from = last.Next()
		}
		for a := from; a.IsValid() && r.Contains(a); a = a.Next() {
			if !reserved(r, a) && !used(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// first skips the network's own address and the first host's, which other
// CNIs give to a bridge: a cluster that changes its CNI keeps a clean split.
func first(r netip.Prefix) netip.Addr {
	if r.Addr().BitLen()-r.Bits() < 2 {
		return r.Addr()
	}
	return r.Addr().Next().Next()
}

func reserved(r netip.Prefix, a netip.Addr) bool {
	if r.Addr().BitLen()-r.Bits() < 2 {
		return false
	}
	broadcast := a.Is4() && !r.Contains(a.Next())
	return broadcast || a == r.Addr() || a == r.Addr().Next()
}
