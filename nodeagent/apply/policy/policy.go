// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy brings the planned policy into force.
//
//	Sets, Classes, Members, Blocks, Groups ── Steps, row by row, referred to by nobody yet ──► maps
//	Subjects ── Switch ──► the bank that is not in force; then the epoch, which puts it in force; the other bank
//	rows that nothing refers to any more ── Steps, backwards ──► gone
//
// A packet meets the old policy or the new one (ADR 0005). Where a row is refused, the subjects that depend on it are
// closed by the same switch that would have put them in force: they may open nothing, and less than before.
//
// What the planner must keep for that: a group never changes its lines; a bit, class or group that a subject in force
// refers to keeps its meaning until the change's last part; a class has the bits of all sets that subjects in force or
// wanted refer to.
package policy

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Driver of the policy maps.
type Driver struct {
	Sets     apply.Target[uint32, uint64]
	Classes  apply.Target[uint32, bpf.ClassSets]
	Members  apply.Target[uint32, bpf.IdentityClass]
	Blocks   apply.Target[netip.Prefix, uint32]
	Groups   apply.Target[bpf.GroupKey, bpf.GroupChunk]
	Subjects apply.Target[bpf.SubjectKey, bpf.Subject] // of both banks
	Epochs   Epochs
}

// Epochs are the serial numbers in fl_config.
type Epochs interface {
	// Epochs reads them: the policy in force, and the one before which flows are judged in full.
	Epochs() (policy, full uint32, err error)
	// SetEpochs writes both in one update.
	SetEpochs(policy, full uint32) error
	// Fence returns when no program runs any more that read the epochs before the call.
	Fence() error
}

// New makes the steps that precede the addresses, in the order in which additions are written, and the switch, which
// follows the addresses and precedes whatever lets a packet reach a subject. closed is the row of a subject that
// depends on what is refused: it allows nothing.
func New(t *table.Tables, d Driver, closed func(bpf.Direction) bpf.Subject) ([]apply.Step, *Switch) {
	members := apply.DropRefused(d.Members)
	s := &Switch{
		tables: t, driver: d, closed: closed,
		sets: apply.Follow(t.Sets, d.Sets), classes: apply.Follow(t.Classes, d.Classes),
		members: apply.Follow[uint32, bpf.IdentityClass](t.Members, members), stale: members.Stale,
		groups: apply.Follow(t.Groups, d.Groups),
		feed:   t.Subjects.Follow(), cidrs: newCIDRs(t),
		want: map[bpf.SubjectKey]bpf.Subject{},
	}
	s.blocks = apply.Follow[netip.Prefix, uint32](t.Blocks, noted{d.Blocks, s.RangesChanged})
	// Nothing goes before what refers to it is gone: an identity in a class that was cleared would be in no set, and what
	// denies by set would miss it.
	unreferred := func(removing ...func() bool) func() bool {
		return func() bool {
			for _, r := range removing {
				if r() {
					return false
				}
			}
			return s.settled() && len(s.kept) == 0
		}
	}
	stale := func() bool { return members.Stale() > 0 }
	return []apply.Step{
		holding{s.sets, unreferred(s.members.Removing, stale, s.classes.Removing)},
		holding{s.classes, unreferred(s.members.Removing, stale)},
		leaving{holding{s.members, unreferred(s.blocks.Removing)}, s},
		holding{s.blocks, unreferred()},
		holding{s.groups, unreferred()},
	}, s
}

// noted calls changed after rows were written or removed.
type noted struct {
	apply.Target[netip.Prefix, uint32]
	changed func()
}

func (n noted) Update(ctx context.Context, keys []netip.Prefix, values []uint32) []error {
	defer n.changed() // even a write that failed may have been half done
	return n.Target.Update(ctx, keys, values)
}

func (n noted) Delete(ctx context.Context, keys []netip.Prefix) []error {
	defer n.changed()
	return n.Target.Delete(ctx, keys)
}

// leaving removes identities before a switch: those that go with a policy were never meant for the next one.
type leaving struct {
	holding
	s *Switch
}

func (l leaving) Upsert(ctx context.Context, now time.Time) {
	if l.s.changed {
		l.Step.Remove(ctx, now)
	}
	l.Step.Upsert(ctx, now)
}

// Memory is what the maps hold from an earlier run, for the planner that numbers sets, classes and groups.
type Memory struct {
	Sets     map[uint32]uint64
	Classes  map[uint32]bpf.ClassSets
	Members  map[uint32]bpf.IdentityClass
	Blocks   map[netip.Prefix]uint32
	Groups   map[bpf.GroupKey]bpf.GroupChunk
	Subjects map[bpf.SubjectKey]bpf.Subject // in force; bank 0 in the key
}

// Remember reads the maps.
func Remember(ctx context.Context, d Driver) (m Memory, err error) {
	if m.Sets, err = apply.All(ctx, d.Sets); err != nil {
		return m, err
	}
	if m.Classes, err = apply.All(ctx, d.Classes); err != nil {
		return m, err
	}
	if m.Members, err = apply.All(ctx, d.Members); err != nil {
		return m, err
	}
	if m.Blocks, err = apply.All(ctx, d.Blocks); err != nil {
		return m, err
	}
	if m.Groups, err = apply.All(ctx, d.Groups); err != nil {
		return m, err
	}
	subjects, err := apply.All(ctx, d.Subjects)
	if err != nil {
		return m, err
	}
	epoch, _, err := d.Epochs.Epochs()
	if err != nil {
		return m, err
	}
	m.Subjects = map[bpf.SubjectKey]bpf.Subject{}
	for key, row := range subjects {
		if key.Bank == bankOf(epoch) {
			key.Bank = 0
			m.Subjects[key] = row
		}
	}
	return m, nil
}

func bankOf(epoch uint32) uint8 { return uint8(epoch & 1) }
