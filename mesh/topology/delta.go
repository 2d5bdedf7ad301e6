// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"
)

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
		old, want := trim(before.AllowedIPs, after.AllowedIPs)
		c.Added, c.Removed = difference(want, old), difference(old, want)
	}
	return c
}

// trim cuts off two lists what they begin and end with alike, which is most of a long one.
func trim(a, b []netip.Prefix) (_, _ []netip.Prefix) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

// difference lists what is in a and not in b, both sorted.
func difference(a, b []netip.Prefix) []netip.Prefix {
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

// merge is old without removed and with added, each sorted; what is in both was removed and added again. What lies between
// the changes is copied as it is.
func merge(old, added, removed []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(old)+len(added))
	for len(added) > 0 || len(removed) > 0 {
		add := len(removed) == 0 || len(added) > 0 && added[0].Compare(removed[0]) <= 0
		from := &removed
		if add {
			from = &added
		}
		x := (*from)[0]
		*from = (*from)[1:]
		i, there := slices.BinarySearchFunc(old, x, netip.Prefix.Compare)
		out = append(out, old[:i]...)
		if old = old[i:]; there {
			old = old[1:]
		}
		if add {
			out = append(out, x)
		}
	}
	return append(out, old...)
}
