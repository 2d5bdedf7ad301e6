// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "net/netip"

// SetCount is how many peer sets the datapath can hold, set 0 (everybody) included: FL_SET_COUNT in bpf/include.
const SetCount = 2048

// SetOutside marks a line's set: of its members those only are meant who are the world's. FL_SET_OUTSIDE in bpf/include.
const SetOutside uint16 = 1 << 15

// LinesPerChunk is how many lines a row of fl_groups holds: FL_GROUP_LINES in bpf/include.
const LinesPerChunk = 32

// Bitmap says in which peer sets the identities of a class are. Bit 0 is never set: everybody is in set 0 anyway.
type Bitmap [SetCount / 64]uint64

// Has says whether the bit of a set is set.
func (b *Bitmap) Has(set uint16) bool { return b[set/64]>>(set%64)&1 != 0 }

func (b *Bitmap) add(set uint16) { b[set/64] |= 1 << (set % 64) }

// Limits are the sizes of the datapath's maps. What has no room is closed: see Engine.Problems.
type Limits struct {
	Sets       int // bits, set 0 included; at most SetCount
	Classes    int // rows of fl_classes, class 0 included
	Identities int // rows of fl_identities
	Chunks     int // rows of fl_groups; an old group and its successor are there at once for a moment
	Subjects   int // identities × directions, in one bank of fl_subjects
	CIDRs      int // rows of fl_blocks4/6; 0: no limit
}

// Config of an Engine.
type Config struct {
	Cluster    string // the local one
	Node       string // the local one
	Limits     Limits
	Remembered Remembered
}

// Remembered is what the kernel still holds from before a restart, in whatever state the writer left it.
type Remembered struct {
	Sets       map[uint16]uint64
	Classes    map[uint32]Bitmap
	Identities map[uint32]uint32 // identity → class
	Groups     map[uint32][]Line
	Subjects   map[SubjectKey]Subject // of the bank in force
	CIDRs      map[netip.Prefix]uint32
}

// Delta is what changes in the datapath's maps, in the order in which it must be written:
//
//  1. Forget: if set, raise both epochs of fl_config by 2 (the bank stays) and wait for a grace period, so that every flow is
//     judged anew in full before it relies on a class, group or set that it remembers, and no packet is underway with one.
//     The numbers of some are about to get another meaning.
//  2. Before, in the order of its fields. Nothing in force refers to what it adds, and what is in force keeps its meaning:
//     a class's row changes only in bits that no subject's lines refer to, and an identity moves only between classes that
//     differ in such bits. An identity that goes is dropped from here on.
//  3. Subjects, into the bank not in force, and the epoch that puts it in force. Skipped if Switch is not set.
//  4. After a grace period, After, in the reverse order of its fields. Identities that are new come only now: the lines
//     before the switch were never meant for them.
//
// Within a map, rows that go are removed before others are added, which may need their room.
//
// Before step 3 every connection gets the verdict from before the delta, afterwards the one it is meant to have; peers that
// come or go are dropped until, or from, the delta. A Delta must be written as a whole before the next Step; where a row is
// refused, subjects that need it must get ClosedSubject first. Maps of a Delta are the caller's.
type Delta struct {
	Forget   bool
	Before   Rows
	Switch   bool
	Subjects map[SubjectKey]*Subject // nil: gone; absent is dropped
	After    Rows
	// Rules are those that verdicts and events name; nil: gone. User space's alone.
	Rules map[uint32]*Rule
	// Again asks for another Step once this delta is written: something waits for room that After makes.
	Again bool
}

// Rows of the maps that subjects refer to. A nil value removes the row.
type Rows struct {
	Sets       map[uint16]uint64  // a hash of the selector; 0: the bit is free
	Classes    map[uint32]*Bitmap // never nil: a class that is free keeps its row
	Identities map[uint32]*uint32 // identity → class
	CIDRs      map[netip.Prefix]*uint32
	Groups     map[uint32][]Line
}

func newDelta() *Delta {
	return &Delta{Before: newRows(), After: newRows(), Subjects: map[SubjectKey]*Subject{}, Rules: map[uint32]*Rule{}}
}

func newRows() Rows {
	return Rows{
		Sets: map[uint16]uint64{}, Classes: map[uint32]*Bitmap{}, Identities: map[uint32]*uint32{},
		CIDRs: map[netip.Prefix]*uint32{}, Groups: map[uint32][]Line{},
	}
}

// Empty says whether there is nothing to write.
func (r *Rows) Empty() bool {
	return len(r.Sets)+len(r.Classes)+len(r.Identities)+len(r.CIDRs)+len(r.Groups) == 0
}

// Empty says whether nothing changes, in the kernel or in user space.
func (d *Delta) Empty() bool { return !d.writes() && len(d.Rules) == 0 }

// writes says whether the kernel's maps change.
func (d *Delta) writes() bool {
	return d.Forget || d.Switch || len(d.Subjects) > 0 || !d.Before.Empty() || !d.After.Empty()
}

// ClosedSubject is the row of a subject with policies that have no room in the maps: nothing is allowed.
func ClosedSubject(dir Direction) Subject { return closedBy(&noRoom[dir]) }

func closedBy(r *Rule) Subject {
	s := Subject{Isolated: true, Closed: true, DefaultRule: r.ID}
	s.Group = uint32(groupHash(s, nil))
	return s
}
