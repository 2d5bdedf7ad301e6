// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
)

// Sets and classes are shared by all namespaces, and whoever may write policies can ask for as many as he likes. Nobody may
// use up what the others need:
//
//   - half of the sets is for namespaces that hold few of them, so a namespace with thousands of rules takes the other half at
//     most, and its rules beyond are closed;
//   - a set that would split more classes than there is room for is refused, because identities without a class are dropped
//     whoever talks to them; a quarter of the classes is for new identities.
//
// Cluster-scoped policies are the administrator's and not limited. Tables too small to be shared are handed out as asked for.
const (
	// sharedSets is the least size of a table of sets that is shared, and few how many of it a namespace may hold of the
	// half that is kept for all.
	sharedSets, few = 256, 32
	// sharedClasses is the same of classes.
	sharedClasses = 1024
)

// asks notes who asks for a set. Several namespaces may ask for the same.
func (s *set) asks(owner string) {
	if at, asked := slices.BinarySearch(s.owners, owner); !asked {
		s.owners = slices.Insert(s.owners, at, owner)
	}
}

// mayTake says whether one of those who ask for a set may have another bit. It is charged then.
func (e *Engine) mayTake(s *set) bool {
	for _, owner := range s.owners {
		if owner == "" || e.limits.Sets < sharedSets || e.held[owner] < few || e.bits.room() > e.limits.Sets/2 {
			s.owner = owner
			return true
		}
	}
	return false
}

// hold counts a bit more or less of who is charged for a set.
func (e *Engine) hold(s *set, n int) {
	if e.held[s.owner] += n; e.held[s.owner] == 0 {
		delete(e.held, s.owner)
	}
}

// fairly orders sets that want bits so that every owner gets his first before anybody his second, where there is not
// enough for all: who is first must not depend on names after a reboot.
func (e *Engine) fairly(list []*set) []*set {
	if len(list) <= e.bits.room() {
		return list
	}
	rank, seen := make(map[*set]int, len(list)), map[string]int{}
	for _, s := range list {
		rank[s] = len(list)
		for _, owner := range s.owners {
			rank[s] = min(rank[s], seen[owner])
		}
		for _, owner := range s.owners {
			seen[owner]++
		}
	}
	slices.SortStableFunc(list, func(a, b *set) int { return cmp.Compare(rank[a], rank[b]) })
	return list
}

// room is how many numbers can be handed out now.
func (p *pool) room() int { return len(p.clean) + int(p.limit-p.next) + len(p.dirty) }

// splits counts the classes that a set would add: those with members and others.
func (c *classes) splits(members []*ident) int {
	hits := map[*class]int{}
	for _, i := range members {
		if i.class != nil {
			hits[i.class]++
		}
	}
	n := 0
	for cl, h := range hits {
		if h < len(cl.members) {
			n++
		}
	}
	return n
}

// mayAssign says whether the classes have room for a set of these members. One that is in force already may also use what is
// kept for new identities.
func (e *Engine) mayAssign(s *set, members []*ident) bool {
	size := len(e.classes.rows)
	if s.owner == "" || size < sharedClasses {
		return true
	}
	room := e.classes.pool.room()
	if s.bit == 0 {
		room -= size / 4
	}
	return e.classes.splits(members) <= room
}
