// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"slices"
)

// changelog holds entries by revision, oldest first. An entry that is replaced leaves a hole where it was and its
// successor goes to the end, so everything after a revision is one run at the end, each key in it once.
type changelog struct {
	slots []slot // neither the first nor the last is a hole
	holes int
}

type slot struct {
	revision uint64
	entry    *entry // nil: a hole
}

// fewSlots are not worth compacting.
const fewSlots = 64

// add appends an entry, which must be newer than all others.
func (l *changelog) add(e *entry) {
	l.slots = append(l.slots, slot{e.revision, e})
}

// drop makes a hole of the entry with a revision, if there is one. It costs a binary search, and once in as many drops as
// there are entries a copy of the slots.
func (l *changelog) drop(revision uint64) {
	i, found := l.search(revision)
	if !found || l.slots[i].entry == nil {
		return
	}
	l.slots[i].entry = nil
	l.holes++
	for len(l.slots) > 0 && l.slots[len(l.slots)-1].entry == nil {
		l.slots = l.slots[:len(l.slots)-1]
		l.holes--
	}
	for len(l.slots) > 0 && l.slots[0].entry == nil {
		l.slots = l.slots[1:]
		l.holes--
	}
	if l.holes > fewSlots && l.holes > len(l.slots)/2 {
		l.compact()
	}
}

func (l *changelog) compact() {
	kept := make([]slot, 0, len(l.slots))
	for _, s := range l.slots {
		if s.entry != nil {
			kept = append(kept, s)
		}
	}
	l.slots, l.holes = kept, 0
}

// after gives the slots with higher revisions, holes among them. They must not be kept beyond the hub's lock.
func (l *changelog) after(revision uint64) []slot {
	i, found := l.search(revision)
	if found {
		i++
	}
	return l.slots[i:]
}

func (l *changelog) search(revision uint64) (int, bool) {
	return slices.BinarySearchFunc(l.slots, revision, func(s slot, r uint64) int { return cmp.Compare(s.revision, r) })
}

// len is the number of entries.
func (l *changelog) len() int { return len(l.slots) - l.holes }

// oldest and newest give the revisions of the first and last entry, 0 if there is none.
func (l *changelog) oldest() uint64 {
	if len(l.slots) == 0 {
		return 0
	}
	return l.slots[0].revision
}

func (l *changelog) newest() uint64 {
	if len(l.slots) == 0 {
		return 0
	}
	return l.slots[len(l.slots)-1].revision
}
