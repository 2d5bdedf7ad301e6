// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"maps"
	"math/bits"
	"slices"
)

// maxIndex is the highest index of a peer.
const maxIndex = 1<<16 - 1

// indexes numbers the peers. An index that was given back is not used again in the same step if there is another: entries
// with it may still be in the kernel for a moment. Those of peers of an earlier run are kept for them.
type indexes struct {
	peers    map[uint16]*nodeState
	reserved map[string]uint16 // by PeerKey, of peers that haven't come yet
	keeper   map[uint16]string // the same the other way
	taken    [(maxIndex + 1) / 64]uint64
	released []uint16 // in this step: still taken
	limit    uint16
}

func newIndexes(remembered map[string]uint16) *indexes {
	x := &indexes{peers: map[uint16]*nodeState{}, reserved: map[string]uint16{}, keeper: map[uint16]string{}, limit: maxIndex}
	x.taken[0] = 1 // 0 means that there is no peer
	for _, key := range slices.Sorted(maps.Keys(remembered)) {
		i := remembered[key]
		if i == 0 || x.keeper[i] != "" {
			continue
		}
		x.reserved[key], x.keeper[i] = i, key
		x.take(i)
	}
	return x
}

func (x *indexes) take(i uint16) { x.taken[i/64] |= 1 << (i % 64) }
func (x *indexes) free(i uint16) { x.taken[i/64] &^= 1 << (i % 64) }

// release gives a node's index back.
func (x *indexes) release(n *nodeState) {
	delete(x.peers, n.index)
	x.released = append(x.released, n.index)
	n.index = 0
}

// assign gives nodes their index, in this order. It returns those that got none.
func (x *indexes) assign(nodes []*nodeState) []*nodeState {
	for _, n := range nodes {
		if i := x.reserved[n.String()]; i != 0 {
			x.give(n, i)
		}
	}
	var without []*nodeState
	for _, n := range nodes {
		if n.index != 0 {
			continue
		}
		i := x.lowest()
		if i == 0 {
			i = x.lowestUnused()
		}
		if i == 0 {
			without = append(without, n)
			continue
		}
		x.give(n, i)
	}
	return without
}

func (x *indexes) give(n *nodeState, i uint16) {
	n.index, x.peers[i] = i, n
	x.take(i)
	if key := x.keeper[i]; key != "" {
		delete(x.keeper, i)
		delete(x.reserved, key)
	}
}

// lowest is the lowest index that nobody has, or had in the last step, or is kept for; 0 if there is none.
func (x *indexes) lowest() uint16 {
	for w, set := range x.taken[:x.limit/64+1] {
		if set == ^uint64(0) {
			continue
		}
		if i := w*64 + bits.TrailingZeros64(^set); i <= int(x.limit) {
			return uint16(i)
		}
		break
	}
	return 0
}

// lowestUnused is the lowest index that no peer has. It is asked for when all are taken, so one that isn't used is one
// that was released just now, or kept.
func (x *indexes) lowestUnused() uint16 {
	var low uint16
	lower := func(i uint16) {
		if x.peers[i] == nil && (low == 0 || i < low) {
			low = i
		}
	}
	for _, i := range x.released {
		lower(i)
	}
	for i := range x.keeper {
		lower(i)
	}
	return low
}

// releaseKept frees what is kept.
func (x *indexes) releaseKept() {
	for i := range x.keeper {
		x.free(i)
	}
	clear(x.keeper)
	clear(x.reserved)
}

// endStep frees what was released.
func (x *indexes) endStep() {
	for _, i := range x.released {
		if x.peers[i] == nil {
			x.free(i)
		}
	}
	x.released = x.released[:0]
}

// all are the indexes of the peers, and those that are kept for peers that haven't come yet.
func (x *indexes) all() map[string]uint16 {
	out := maps.Clone(x.reserved)
	for i, n := range x.peers {
		out[n.String()] = i
	}
	return out
}
