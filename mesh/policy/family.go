// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
)

// family is the peers of an egress rule by the numbers that their pods give a port's name: the rule has a line for each
// number, about those who call it so.
type family struct {
	key, name string // name as in World.NamedPorts
	anyPeer   bool   // else pods
	pods      []peer // CIDRs have no named ports
	orUnknown bool

	members map[uint32][]uint16 // identity → numbers
	counts  map[uint16]int      // number → members
	sets    map[uint16]*set
	users   map[*profile]struct{}
}

func newFamily(key string, r *rule, name string) *family {
	return &family{
		key: key, name: name, anyPeer: r.anyPeer, orUnknown: r.kind == RuleDeny,
		pods:    slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return p.pods == nil }),
		members: map[uint32][]uint16{}, counts: map[uint16]int{}, sets: map[uint16]*set{}, users: map[*profile]struct{}{},
	}
}

func (f *family) numbers() []uint16 { return slices.Sorted(maps.Keys(f.counts)) }

// includes says whether an identity, which has labels, is one of the peers.
func (f *family) includes(c *clusters, i *ident) bool {
	return f.anyPeer || slices.ContainsFunc(f.pods, func(p peer) bool { return c.selects(p.pods, i.labels, f.orUnknown) })
}

// update sets the numbers of an identity, none if it is no peer. It says whether the family's numbers are others now.
func (f *family) update(id uint32, numbers []uint16) (changed bool) {
	before := f.members[id]
	if slices.Equal(before, numbers) {
		return false
	}
	for _, n := range numbers {
		if f.counts[n]++; f.counts[n] == 1 {
			changed = true
		}
	}
	for _, n := range before {
		if f.counts[n]--; f.counts[n] == 0 {
			delete(f.counts, n)
			changed = true
		}
	}
	if len(numbers) == 0 {
		delete(f.members, id)
	} else {
		f.members[id] = numbers
	}
	return changed
}
