// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"
)

func shorten(p netip.Prefix, bits int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func contains(ranges []netip.Prefix, addr netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}

func containsPrefix(ranges []netip.Prefix, c netip.Prefix) bool {
	for _, r := range ranges {
		if r.Bits() <= c.Bits() && r.Contains(c.Addr()) {
			return true
		}
	}
	return false
}

// firstOf is the first address of a family.
func firstOf(addrs []netip.Addr, v4 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// distinct drops what was there before, and keeps the order. The lists of a record are short.
func distinct[T comparable](list []T) []T {
	for i := 1; i < len(list); i++ {
		if !slices.Contains(list[:i], list[i]) {
			continue
		}
		out := slices.Clone(list[:i])
		for _, x := range list[i:] {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
		return out
	}
	return list
}

// gateways are the addresses of a block of pod addresses that the node itself may send from: its first address, which
// bridge plugins give the bridge, and the one of the network, which flannel gives its VXLAN device.
func gateways(block netip.Prefix) []netip.Addr {
	network := block.Masked().Addr()
	if first := network.Next(); block.Contains(first) {
		return []netip.Addr{network, first}
	}
	return []netip.Addr{network}
}
