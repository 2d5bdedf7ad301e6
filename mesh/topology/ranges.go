// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"maps"
	"net/netip"
)

// WithPolicyCIDRs adds the CIDRs that policies name (prefix → identity) to a plan's ranges, for one table that is looked
// up by longest prefix. The mesh's own ranges keep the last word within themselves: a policy about 10.0.0.0/8 or about
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
