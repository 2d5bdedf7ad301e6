// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Target is a door that holds rows. All its operations may be repeated.
type Target[K, V comparable] interface {
	// Update makes key hold value.
	Update(ctx context.Context, key K, value V) error
	// Delete removes key; that it wasn't there is no error.
	Delete(ctx context.Context, key K) error
	// Have returns what is there from an earlier run.
	Have(ctx context.Context) (map[K]V, error)
}

// Outcome of a step in one pass.
type Outcome struct {
	Step    string
	Written int   // rows the target took
	Removed int   // rows the target dropped
	Failing int   // rows that wait for a retry
	Err     error // one of the reasons
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// work is an operation that is still to be done.
type work[K, V comparable] struct {
	row   *table.Row[K, V] // nil: remove the key
	err   error            // of the last try
	wait  time.Duration
	after time.Time
}

// Follower brings one table to one target.
type Follower[K, V comparable] struct {
	table   *table.Desired[K, V]
	target  Target[K, V]
	changes statedb.ChangeIterator[*table.Row[K, V]]

	todo    map[K]work[K, V]
	have    map[K]V // what the target held at start; nil once nothing is left to compare
	loaded  bool
	loadErr error
	results []table.Result[K, V]
	out     Outcome
}

// Follow makes a follower. Nothing happens before its first pass.
func Follow[K, V comparable](t *table.Desired[K, V], target Target[K, V]) (*Follower[K, V], error) {
	changes, err := t.Changes()
	if err != nil {
		return nil, err
	}
	return &Follower[K, V]{table: t, target: target, changes: changes, todo: map[K]work[K, V]{}}, nil
}

// Name of the step: its table's.
func (f *Follower[K, V]) Name() string { return f.table.Name() }

// Outcome of the pass at hand.
func (f *Follower[K, V]) Outcome() Outcome { return f.out }

// Collect takes in the table's changes. The channel closes when there are more.
func (f *Follower[K, V]) Collect(ctx context.Context, txn statedb.ReadTxn) <-chan struct{} {
	f.out = Outcome{Step: f.Name()}
	f.load(ctx)
	seq, watch := f.changes.Next(txn)
	for change := range seq {
		row := change.Object
		switch {
		case change.Deleted:
			f.todo[row.Key] = work[K, V]{}
		case row.Status.State == table.Pending:
			f.todo[row.Key] = work[K, V]{row: row}
		}
	}
	return watch
}

// load reads the target once. While that fails rows are written blindly, which is right but not free.
func (f *Follower[K, V]) load(ctx context.Context) {
	if f.loaded {
		return
	}
	have, err := f.target.Have(ctx)
	if err != nil {
		f.loadErr = fmt.Errorf("reading what %s holds: %w", f.Name(), err)
		return
	}
	f.have, f.loaded, f.loadErr = have, true, nil
}

// Resync makes the next pass compare the target with the table once more, as after a start. It repairs what a stranger
// changed, and costs a read where nothing was.
func (f *Follower[K, V]) Resync(txn statedb.ReadTxn) {
	f.loaded, f.have = false, nil
	for row := range f.table.All(txn) {
		if _, busy := f.todo[row.Key]; !busy {
			f.todo[row.Key] = work[K, V]{row: row}
		}
	}
}

// Upsert writes what was added or changed.
func (f *Follower[K, V]) Upsert(ctx context.Context, now time.Time) {
	for key, w := range f.todo {
		if w.row == nil || now.Before(w.after) {
			continue
		}
		if have, ok := f.have[key]; ok && have == w.row.Value {
			f.done(key, w)
			continue
		}
		if err := f.target.Update(ctx, key, w.row.Value); err != nil {
			f.failed(key, w, now, fmt.Errorf("writing %s %s: %w", f.Name(), table.Format(key), err))
			continue
		}
		f.out.Written++
		f.done(key, w)
	}
}

// Waiting yields the keys that are not as the table wants them, because the target refused.
func (f *Follower[K, V]) Waiting() iter.Seq[K] {
	return func(yield func(K) bool) {
		for key, w := range f.todo {
			if w.err != nil && !yield(key) {
				return
			}
		}
	}
}

// Prune schedules the removal of what the target held at start and the table doesn't want.
func (f *Follower[K, V]) Prune(txn statedb.ReadTxn) {
	if !f.loaded {
		return
	}
	for key := range f.have {
		if _, wanted := f.table.Get(txn, key); wanted {
			continue
		}
		if _, busy := f.todo[key]; !busy {
			f.todo[key] = work[K, V]{}
		}
	}
	f.have = nil
}

// Remove deletes what is gone.
func (f *Follower[K, V]) Remove(ctx context.Context, now time.Time) {
	for key, w := range f.todo {
		if w.row != nil || now.Before(w.after) {
			continue
		}
		if err := f.target.Delete(ctx, key); err != nil {
			f.failed(key, w, now, fmt.Errorf("removing %s %s: %w", f.Name(), table.Format(key), err))
			continue
		}
		f.out.Removed++
		f.done(key, w)
	}
}

func (f *Follower[K, V]) done(key K, w work[K, V]) {
	delete(f.todo, key)
	delete(f.have, key)
	if w.row != nil {
		f.results = append(f.results, table.Result[K, V]{Row: w.row})
	}
}

func (f *Follower[K, V]) failed(key K, w work[K, V], now time.Time, err error) {
	w.err = err
	w.wait = min(max(2*w.wait, firstRetry), lastRetry)
	w.after = now.Add(w.wait)
	f.todo[key] = w
	// A half-done write leaves the target in neither state.
	delete(f.have, key)
	if w.row != nil {
		f.results = append(f.results, table.Result[K, V]{Row: w.row, Err: err})
	}
}

// Commit records the statuses and returns when the next retry is due (zero: nothing waits).
func (f *Follower[K, V]) Commit(now time.Time) (time.Time, error) {
	err := f.table.SetStatus(f.results)
	f.results = f.results[:0]
	var next time.Time
	for _, w := range f.todo {
		if w.err != nil {
			f.out.Failing++
			f.out.Err = w.err
		}
		if next.IsZero() || w.after.Before(next) {
			next = w.after
		}
	}
	if f.loadErr != nil {
		f.out.Err = f.loadErr
		next = now.Add(firstRetry)
	}
	return next, err
}
