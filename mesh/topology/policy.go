// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"maps"
	"net/netip"
)

// WithPolicyCIDRs adds the CIDRs that policies name (prefix → identity) to a plan's ranges, for one table that is looked
// up by longest prefix. Within the mesh's own ranges only those count: a policy about 10.0.0.0/8 or about
// 10.2.3.0/24 must not make an address of another cluster's pods count as an outsider's, or lead it around the tunnel.
func WithPolicyCIDRs(ranges map[netip.Prefix]IPCacheEntry, policy map[netip.Prefix]uint32) map[netip.Prefix]IPCacheEntry {
	out := make(map[netip.Prefix]IPCacheEntry, len(ranges)+len(policy))
	maps.Copy(out, ranges)
	for prefix, id := range policy {
		if !within(ranges, prefix) {
			out[prefix] = IPCacheEntry{Identity: id}
		}
	}
	return out
}

// within says whether a prefix lies inside one of the ranges.
func within(ranges map[netip.Prefix]IPCacheEntry, prefix netip.Prefix) bool {
	for bits := prefix.Bits(); bits >= 0; bits-- {
		if _, ok := ranges[shorten(prefix, bits)]; ok {
			return true
		}
	}
	return false
}

// PolicyNodes returns the addresses of nodes that policies name by a CIDR, with the CIDR's identity: that is who they
// are to policies, instead of RemoteNode. An address is looked up exactly before any range is, so without this no policy
// could name a node: not the API server that a pod must reach, and not the one that calls a pod's webhook.
func PolicyNodes(cache map[netip.Addr]IPCacheEntry, policy map[netip.Prefix]uint32) map[netip.Addr]IPCacheEntry {
	out := map[netip.Addr]IPCacheEntry{}
	for addr, entry := range cache {
		if !entry.Flags.Has(NodeAddress) {
			continue
		}
		longest := -1
		for prefix, id := range policy {
			if prefix.Contains(addr) && prefix.Bits() > longest {
				longest, entry.Identity = prefix.Bits(), id
			}
		}
		if longest >= 0 {
			out[addr] = entry
		}
	}
	return out
}
