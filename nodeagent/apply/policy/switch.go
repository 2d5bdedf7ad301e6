// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Switch is the step that puts the subjects in force. It alone raises the policy epoch.
type Switch struct {
	tables    *table.Tables
	driver    Driver
	closed    func(bpf.Direction) bpf.Subject
	ranges    Ranges
	addresses Addresses

	sets    *apply.Follower[uint32, uint64]
	classes *apply.Follower[uint32, bpf.ClassSets]
	members *apply.Follower[uint32, bpf.IdentityClass]
	stale   func() int
	blocks  *apply.Follower[netip.Prefix, uint32]
	groups  *apply.Follower[bpf.GroupKey, bpf.GroupChunk]
	feed    table.Feed[bpf.SubjectKey, bpf.Subject]
	cidrs   *cidrs

	want map[bpf.SubjectKey]bpf.Subject
	// kept are subjects in force from an earlier run that nobody wants yet.
	kept   map[bpf.SubjectKey]bpf.Subject
	banks  [2]bank
	epoch  uint32
	full   uint32
	loaded bool
	// What is owed: an epoch by itself; flows that are judged in full at the next one; both epochs raised without touching
	// the banks, before anything else; the bank that was in force is still being read.
	oweEpoch, oweFull, oweForget, oweFence bool

	changed bool // since the last pass that came to its end
	// dirty: rows came to the tables that no pass has seen yet.
	dirty   bool
	reasons map[bpf.SubjectKey]error
	seen    refusals // when it was last looked at
	backoff backoff
	out     apply.Outcome
}

// backoff between tries after an error.
type backoff struct {
	wait  time.Duration
	until time.Time
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
)

func (b *backoff) failed(now time.Time) {
	if now.Before(b.until) {
		return // tried early because something else changed
	}
	b.wait = min(max(2*b.wait, firstRetry), lastRetry)
	b.until = now.Add(b.wait)
}

// Watch lets the switch see what becomes of ranges and addresses: those that are refused close subjects.
func (s *Switch) Watch(r Ranges, a Addresses) { s.ranges, s.addresses = r, a }

// Hold makes a step remove nothing while subjects in force may rely on it: a range of the mesh, say, whose addresses would
// be the world's.
func (s *Switch) Hold(step apply.Step) apply.Step {
	return holding{step, func() bool { return s.settled() && len(s.kept) == 0 }}
}

type holding struct {
	apply.Step
	free func() bool
}

func (h holding) Remove(ctx context.Context, now time.Time) {
	if h.free() {
		h.Step.Remove(ctx, now)
	}
}

// forget makes the next pass raise both epochs and nothing else: every flow is judged in full before it relies on what it
// remembers.
func (s *Switch) forget() { s.oweForget = true }

func (s *Switch) forgetting() bool { return s.oweForget || !s.loaded }

// demand makes the next pass raise the policy epoch whether or not a subject changes.
func (s *Switch) demand() { s.oweEpoch = true }

// RangesChanged makes flows be judged in full: an address may be somebody else's now, or in another CIDR.
func (s *Switch) RangesChanged() { s.oweFull = true }

// ProgramsChanged makes flows be judged in full: programs of another version may have judged them otherwise.
func (s *Switch) ProgramsChanged() { s.oweFull = true }

// Name of the step: its table's.
func (s *Switch) Name() string { return s.tables.Subjects.Name() }

// Outcome of the pass at hand.
func (s *Switch) Outcome() apply.Outcome { return s.out }

// Resync makes the next pass read both banks again.
func (s *Switch) Resync() { s.loaded = false }

// Load reads both banks and the epochs.
func (s *Switch) Load(ctx context.Context) {
	s.out = apply.Outcome{Step: s.Name()}
	if s.loaded {
		return
	}
	if err := s.load(ctx); err != nil {
		s.out.Err = err
	}
}

func (s *Switch) load(ctx context.Context) error {
	policy, full, err := s.driver.Epochs.Epochs()
	if err != nil {
		return err
	}
	banks := [2]bank{{}, {}}
	err = s.driver.Subjects.Have(ctx, func(keys []bpf.SubjectKey, values []bpf.Subject) {
		for i, key := range keys {
			to := banks[key.Bank&1]
			key.Bank = 0
			to[key] = values[i]
		}
	})
	if err != nil {
		return fmt.Errorf("reading what %s holds: %w", s.Name(), err)
	}
	if s.kept == nil {
		// An agent that was killed may have written ranges or addresses and not come to raising an epoch.
		s.kept, s.oweFull = maps.Clone(banks[bankOf(policy)]), true
	}
	s.banks, s.epoch, s.full, s.loaded, s.oweFence, s.changed = banks, policy, full, true, true, true
	return nil
}

// Collect takes in the table's changes.
func (s *Switch) Collect(txn *table.Txn) <-chan struct{} {
	s.dirty = false
	return s.feed.Next(txn, func(c table.RowChange[bpf.SubjectKey, bpf.Subject]) {
		s.changed = true
		delete(s.kept, c.Key)
		if c.Deleted {
			delete(s.want, c.Key)
		} else {
			s.want[c.Key] = c.Value
		}
	})
}

// Upsert puts what is wanted in force, as far as everything it depends on is written.
func (s *Switch) Upsert(ctx context.Context, now time.Time) {
	s.cidrs.learn()
	if !s.loaded || !s.due(now) {
		return
	}
	s.seen = s.refusals()
	err := s.publish(ctx)
	s.settle()
	if err != nil {
		s.out.Err = err
		s.loaded = false // what was written is not known
		s.backoff.failed(now)
		return
	}
	s.changed = false
	if len(s.reasons) > 0 {
		s.backoff.failed(now)
	} else {
		s.backoff = backoff{}
	}
}

// refusals counts what other steps wait for. A subject is closed, or no longer, when one of them changes.
type refusals struct{ ranges, addresses, sets, classes, stale, blocks, groups int }

func (s *Switch) refusals() refusals {
	r := refusals{
		sets: s.sets.Refusals(), classes: s.classes.Refusals(), stale: s.stale(), blocks: s.blocks.Refusals(),
		groups: s.groups.Refusals(),
	}
	if s.ranges != nil {
		r.ranges = s.ranges.Refusals()
	}
	if s.addresses != nil {
		r.addresses = s.addresses.Refusals()
	}
	return r
}

// due says whether there is anything to do: at once if something changed, else when what was refused is to be tried
// again.
func (s *Switch) due(now time.Time) bool {
	return s.changed || s.oweForget || s.oweEpoch || s.oweFull || s.oweFence || s.refusals() != s.seen ||
		len(s.reasons) > 0 && !now.Before(s.backoff.until)
}

func (s *Switch) publish(ctx context.Context) error {
	if err := s.fence(); err != nil {
		return err
	}
	if s.oweForget {
		// By two: the bank in force stays. What forgetting is for is written once every program has seen it.
		if err := s.raise(2); err != nil {
			return err
		}
		s.oweForget = false
		if err := s.fence(); err != nil {
			return err
		}
	}
	want := s.effective()
	next := s.banks[bankOf(s.epoch+1)]
	if err := next.align(ctx, s.driver.Subjects, bankOf(s.epoch+1), want, s.reasons); err != nil {
		return err
	}
	if s.oweEpoch || s.oweFull || !maps.Equal(next, s.banks[bankOf(s.epoch)]) {
		if err := s.raise(1); err != nil {
			return err
		}
		if err := s.fence(); err != nil {
			return err
		}
	}
	// The other bank is brought in line, so that the next switch finds only its own differences to write.
	return s.banks[bankOf(s.epoch+1)].align(ctx, s.driver.Subjects, bankOf(s.epoch+1), want, s.reasons)
}

// raise moves the policy epoch on: by one puts the other bank in force.
func (s *Switch) raise(by uint32) error {
	epoch, full := s.epoch+by, s.full
	if s.oweFull || s.oweForget {
		full = epoch
	}
	if err := s.driver.Epochs.SetEpochs(epoch, full); err != nil {
		return fmt.Errorf("raising the policy epoch to %d: %w", epoch, err)
	}
	s.epoch, s.full, s.oweEpoch, s.oweFull, s.oweFence = epoch, full, false, false, true
	s.out.Written++
	return nil
}

// fence waits until nobody reads the bank that is no longer in force.
func (s *Switch) fence() error {
	if !s.oweFence {
		return nil
	}
	if err := s.driver.Epochs.Fence(); err != nil {
		return fmt.Errorf("waiting for programs that use the old policy: %w", err)
	}
	s.oweFence = false
	return nil
}

// effective is what is wanted, with the subjects closed that depend on what is not written. Why is in reasons.
func (s *Switch) effective() bank {
	s.reasons = map[bpf.SubjectKey]error{}
	d := s.doubts()
	out := make(bank, len(s.want)+len(s.kept))
	for key, row := range s.want {
		if err := s.ready(row, d); err != nil {
			s.reasons[key] = err
			row = s.closed(key.Dir)
		}
		out[key] = row
	}
	for key, row := range s.kept {
		if d.everything || d.reason != "" && row.Lines > 0 {
			row = s.closed(key.Dir) // what its lines are is the former run's knowledge
		}
		out[key] = row
	}
	return out
}

// ready says why a subject may not be put in force.
func (s *Switch) ready(row bpf.Subject, d doubt) error {
	if d.everything {
		return errors.New("closed: " + d.reason)
	}
	for from := uint32(0); from < row.Lines; from += bpf.GroupLines {
		key := bpf.GroupKey{Group: row.Group, Chunk: from / bpf.GroupLines}
		chunk, ok := s.tables.Groups.Get(key)
		if !ok || chunk.Status.State != table.Done {
			return fmt.Errorf("closed: the lines of group %s are not written: %s", table.Format(key), chunk.Status.Error)
		}
		n := min(row.Lines-from, bpf.GroupLines)
		if d.reason != "" && d.about(chunk.Value.Line[:n]) {
			return errors.New("closed: " + d.reason)
		}
	}
	return nil
}

// settle records what became of the subjects.
func (s *Switch) settle() {
	keys := make([]bpf.SubjectKey, 0, len(s.want))
	values := make([]bpf.Subject, 0, len(s.want))
	errs := make([]error, 0, len(s.want))
	inForce := s.banks[bankOf(s.epoch)]
	for key, row := range s.want {
		err := s.reasons[key]
		if err == nil && inForce[key] != row {
			continue // not yet
		}
		keys, values, errs = append(keys, key), append(values, row), append(errs, err)
	}
	s.feed.Settle(keys, values, errs)
}

// Prune lets go of subjects that an earlier run put in force and nobody wants.
func (s *Switch) Prune(complete bool) {
	if complete && s.loaded && len(s.kept) > 0 {
		s.kept, s.changed = map[bpf.SubjectKey]bpf.Subject{}, true
	}
}

// Remove has nothing to do: who is gone is not in the next bank.
func (s *Switch) Remove(context.Context, time.Time) {}

// Commit returns when the next try is due.
func (s *Switch) Commit(now time.Time) time.Time {
	s.out.Failing = len(s.reasons)
	for _, err := range s.reasons {
		if s.out.Err == nil {
			s.out.Err = err
		}
	}
	switch {
	case !s.loaded:
		return now.Add(max(s.backoff.wait, firstRetry))
	case s.dirty || s.changed || s.oweForget || s.oweEpoch || s.oweFull || s.oweFence:
		return now.Add(time.Nanosecond) // ranges went after this step had its turn, say
	case len(s.reasons) > 0:
		return s.backoff.until
	}
	return time.Time{}
}

// settled says that no program can refer to anything but what the bank in force refers to, and that this is what the
// tables wanted at the last pass.
func (s *Switch) settled() bool { return s.loaded && !s.changed && !s.oweFence }

// inForce says that the subjects in the tables are in force, or closed.
func (s *Switch) inForce() bool {
	return s.settled() && !s.dirty && !s.oweForget && !s.oweEpoch && !s.oweFull && len(s.kept) == 0
}

// clean says that everything in the tables is in force, closed or refused, and everything that went is gone: numbers that
// nothing uses may be given away again.
func (s *Switch) clean() bool {
	return s.inForce() && s.sets.Refusals()+s.classes.Refusals()+s.stale() == 0 &&
		!s.sets.Removing() && !s.classes.Removing() && !s.members.Removing() && !s.blocks.Removing() && !s.groups.Removing()
}
