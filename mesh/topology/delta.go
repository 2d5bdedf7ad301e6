// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import "net/netip"

// Delta is what a Step changed. Each key is there once, and only if what belongs to it is not what it was.
type Delta struct {
	Peers     []PeerChange
	Addresses []Change[netip.Addr, IPCacheEntry]
	// CIDRs are the mesh's ranges and what policies name outside of them, for a lookup by longest prefix.
	CIDRs []Change[netip.Prefix, IPCacheEntry]
	// Encrypted are the ranges whose traffic must never leave the node in the clear: other clusters' pods. Our own
	// cluster's aren't among them: its nodes and pods do talk in the clear, whatever is encrypted between pods.
	Encrypted []Change[netip.Prefix, struct{}]
	Routes    []Change[netip.Prefix, Route]
}

// Change of what belongs to a key.
type Change[K comparable, V any] struct {
	Key   K
	Value V
	Gone  bool // nothing belongs to it any longer, and Value is zero
}

// PeerChange is another peer, or another state of it, at an index.
type PeerChange struct {
	Index    uint16
	Old, New *Peer // nil: there was none, there is none
	// Added and Removed are AllowedIPs of New and Old, sorted. Where the public key is another, they are all: to WireGuard
	// that is another peer. What one peer loses another may get in the same Delta; WireGuard moves it when it is added.
	Added, Removed []netip.Prefix
}

// Empty says whether nothing changed.
func (d *Delta) Empty() bool {
	return len(d.Peers) == 0 && len(d.Addresses) == 0 && len(d.CIDRs) == 0 && len(d.Encrypted) == 0 && len(d.Routes) == 0
}

func newPeerChange(index uint16, before, after *Peer) PeerChange {
	c := PeerChange{Index: index, Old: before, New: after}
	switch {
	case before == nil:
		c.Added = after.AllowedIPs
	case after == nil:
		c.Removed = before.AllowedIPs
	case before.PublicKey != after.PublicKey:
		c.Added, c.Removed = after.AllowedIPs, before.AllowedIPs
	default:
		c.Added, c.Removed = difference(after.AllowedIPs, before.AllowedIPs), difference(before.AllowedIPs, after.AllowedIPs)
	}
	return c
}

// difference lists what is in a and not in b, both sorted.
func difference(a, b []netip.Prefix) []netip.Prefix {
	if len(a) > 0 && len(b) > 0 && &a[0] == &b[0] && len(a) == len(b) {
		return nil
	}
	var out []netip.Prefix
	for _, x := range a {
		for len(b) > 0 && b[0].Compare(x) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != x {
			out = append(out, x)
		}
	}
	return out
}

// merge is old without removed and with added, each sorted.
func merge(old, added, removed []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, max(0, len(old)+len(added)-len(removed)))
	for _, x := range old {
		for len(added) > 0 && added[0].Compare(x) < 0 {
			out, added = append(out, added[0]), added[1:]
		}
		if len(added) > 0 && added[0] == x {
			continue // removed and added again
		}
		for len(removed) > 0 && removed[0].Compare(x) < 0 {
			removed = removed[1:]
		}
		if len(removed) == 0 || removed[0] != x {
			out = append(out, x)
		}
	}
	return append(out, added...)
}
