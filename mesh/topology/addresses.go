// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/google/btree"
)

// addresses keeps who claims which address, and what was last said about it. Most addresses have one claimant, a pod: that
// takes one small row. The others of a contested address lie beside.
type addresses struct {
	v4     map[[4]byte]addressState
	v6     map[[16]byte]addressState
	others map[netip.Addr][]*endpointState // of two or more pods, all but the first, in order
	nodes  *btree.BTreeG[nodeAddress]      // by address
	dirty  []netip.Addr
}

type addressState struct {
	pod   *endpointState // the first that claims it
	entry IPCacheEntry   // as last emitted; its flags also hold the marks
}

// Marks among an entry's flags, where they take no room of their own.
const (
	markEmitted Flags = 1 << 7 // there is an entry
	markDirty   Flags = 1 << 6 // in the list of those to look at
	markNode    Flags = 1 << 5 // a node claims it, or it is a gateway
	marks             = markEmitted | markDirty | markNode
)

// nodeAddress is an address of a node, or one that it may have as a gateway.
type nodeAddress struct {
	addr    netip.Addr
	gateway bool
	node    *nodeState
}

func (a nodeAddress) compare(b nodeAddress) int {
	if a.addr != b.addr {
		return a.addr.Compare(b.addr)
	}
	if a.gateway != b.gateway {
		return compareBools(a.gateway, b.gateway)
	}
	return compareOwners(a.node, b.node)
}

func newAddresses() *addresses {
	return &addresses{
		v4: map[[4]byte]addressState{}, v6: map[[16]byte]addressState{},
		others: map[netip.Addr][]*endpointState{},
		nodes:  btree.NewG(16, func(a, b nodeAddress) bool { return a.compare(b) < 0 }),
	}
}

func (x *addresses) get(addr netip.Addr) addressState {
	if addr.Is4() {
		return x.v4[addr.As4()]
	}
	return x.v6[addr.As16()]
}

func (x *addresses) put(addr netip.Addr, s addressState) {
	keep := s.pod != nil || s.entry.Flags&marks != 0
	switch {
	case addr.Is4() && keep:
		x.v4[addr.As4()] = s
	case addr.Is4():
		delete(x.v4, addr.As4())
	case keep:
		x.v6[addr.As16()] = s
	default:
		delete(x.v6, addr.As16())
	}
}

// mark has an address looked at in this step.
func (x *addresses) mark(addr netip.Addr) {
	if x.get(addr).entry.Flags&markDirty == 0 {
		x.update(addr, func(*addressState) {})
	}
}

// update changes who claims an address.
func (x *addresses) update(addr netip.Addr, fn func(*addressState)) {
	s := x.get(addr)
	fn(&s)
	if s.entry.Flags&markDirty == 0 {
		s.entry.Flags |= markDirty
		x.dirty = append(x.dirty, addr)
	}
	x.put(addr, s)
}

func (x *addresses) claim(addr netip.Addr, e *endpointState) {
	x.update(addr, func(s *addressState) {
		if s.pod == nil {
			s.pod = e
			return
		}
		if s.pod == e {
			return
		}
		loser := e
		if e.compare(s.pod) < 0 {
			s.pod, loser = e, s.pod
		}
		list := x.others[addr]
		if i, there := slices.BinarySearchFunc(list, loser, (*endpointState).compare); !there {
			x.others[addr] = slices.Insert(list, i, loser)
		}
	})
}

func (x *addresses) release(addr netip.Addr, e *endpointState) {
	x.update(addr, func(s *addressState) {
		list := x.others[addr]
		switch {
		case s.pod != e:
			if i, there := slices.BinarySearchFunc(list, e, (*endpointState).compare); there {
				list = slices.Delete(list, i, i+1)
			}
		case len(list) == 0:
			s.pod = nil
		default:
			s.pod = list[0]
			list = slices.Delete(list, 0, 1)
		}
		if len(list) > 0 {
			x.others[addr] = list
		} else {
			delete(x.others, addr)
		}
	})
}

func (x *addresses) claimNode(a nodeAddress) {
	x.nodes.ReplaceOrInsert(a)
	x.update(a.addr, func(s *addressState) { s.entry.Flags |= markNode })
}

func (x *addresses) releaseNode(a nodeAddress) {
	x.nodes.Delete(a)
	x.update(a.addr, func(s *addressState) {
		s.entry.Flags &^= markNode
		x.nodesAt(a.addr, func(nodeAddress) bool {
			s.entry.Flags |= markNode
			return false
		})
	})
}

// nodesAt calls fn for the nodes that claim an address, then for those that may have it as a gateway, each in order,
// until fn returns false.
func (x *addresses) nodesAt(addr netip.Addr, fn func(nodeAddress) bool) {
	x.nodes.AscendGreaterOrEqual(nodeAddress{addr: addr}, func(a nodeAddress) bool {
		return a.addr == addr && fn(a)
	})
}
