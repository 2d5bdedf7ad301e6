// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import "net/netip"

// nodeAddresses finds the other clusters' nodes that have an address in a range. A cluster that joins brings ranges that
// no node of the mesh may have an address in: the nodes concerned are judged anew, and no others.
type nodeAddresses struct {
	blocks map[netip.Prefix]map[string]bool // block → record keys of nodes
	of     map[string][]netip.Addr          // record key of the node → its addresses
}

// Addresses are held in blocks of this many leading bits. Pod ranges are about as large, so few blocks are looked at for
// one range and few addresses in vain.
const (
	blockBits4 = 16
	blockBits6 = 32
)

// maxIndexed addresses of one record; one that has more is refused whatever they are.
const maxIndexed = 16

func newNodeAddresses() *nodeAddresses {
	return &nodeAddresses{blocks: map[netip.Prefix]map[string]bool{}, of: map[string][]netip.Addr{}}
}

// set notes a node's addresses; nil: it is gone.
func (n *nodeAddresses) set(key string, addresses []string) {
	for _, a := range n.of[key] {
		b := block(a)
		delete(n.blocks[b], key)
		if len(n.blocks[b]) == 0 {
			delete(n.blocks, b)
		}
	}
	delete(n.of, key)
	for _, s := range addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue // refused for that, whatever the ranges are
		}
		a = a.Unmap()
		b := block(a)
		if n.blocks[b] == nil {
			n.blocks[b] = map[string]bool{}
		}
		n.blocks[b][key] = true
		n.of[key] = append(n.of[key], a)
	}
}

func block(a netip.Addr) netip.Prefix {
	bits := blockBits6
	if a.Is4() {
		bits = blockBits4
	}
	return netip.PrefixFrom(a.WithZone(""), bits).Masked()
}

// within adds the nodes that have an address in a range to found.
func (n *nodeAddresses) within(p netip.Prefix, found map[string]bool) {
	b := block(p.Addr())
	if p.Bits() >= b.Bits() {
		n.collect(b, p, found)
		return
	}
	for b := range n.blocks {
		if p.Overlaps(b) {
			n.collect(b, p, found)
		}
	}
}

func (n *nodeAddresses) collect(b, p netip.Prefix, found map[string]bool) {
	for key := range n.blocks[b] {
		for _, a := range n.of[key] {
			if p.Contains(a) {
				found[key] = true
			}
		}
	}
}
