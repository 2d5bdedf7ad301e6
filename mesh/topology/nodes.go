// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import "net/netip"

// PolicyNodes returns the addresses of nodes that policies name by a CIDR, with the CIDR's identity: that is who they
// are to policies, instead of RemoteNode. An address is looked up exactly before any range is, so without this no policy
// could name a node: not the API server that a pod must reach, and not the one that calls a pod's webhook.
func PolicyNodes(cache map[netip.Addr]IPCacheEntry, policy map[netip.Prefix]uint32) map[netip.Addr]IPCacheEntry {
	var used4, used6 [129]bool
	for p := range policy {
		if p.Addr().Is4() {
			used4[p.Bits()] = true
		} else {
			used6[p.Bits()] = true
		}
	}
	out := map[netip.Addr]IPCacheEntry{}
	for addr, entry := range cache {
		if !entry.Node {
			continue
		}
		used := &used6
		if addr.Is4() {
			used = &used4
		}
		if id, ok := longest(policy, used, addr); ok {
			entry.Identity = id
			out[addr] = entry
		}
	}
	return out
}

// longest returns the identity of the longest prefix that contains an address.
func longest(policy map[netip.Prefix]uint32, used *[129]bool, addr netip.Addr) (uint32, bool) {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if !used[bits] {
			continue
		}
		if id, ok := policy[netip.PrefixFrom(addr, bits).Masked()]; ok {
			return id, true
		}
	}
	return 0, false
}
