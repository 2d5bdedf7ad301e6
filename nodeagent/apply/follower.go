// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Outcome of a step in one pass.
type Outcome struct {
	Step    string
	Written int   // rows the target took
	Removed int   // rows the target dropped
	Failing int   // rows that wait for a retry
	Pruned  bool  // everything that an earlier run left and nobody wants was removed, but for what is failing
	Err     error // one of the reasons
}

// ErrNotYet is in an error of a target that waits for something else of this agent, and will take the row then. It is tried
// again soon, however often it was.
var ErrNotYet = errors.New("not yet")

// batch is how many rows a target gets at a time. It bounds what a pass takes of memory beyond the rows' own.
const batch = 4096

// Follower brings one table to one target.
type Follower[K, V comparable] struct {
	table  *table.Desired[K, V]
	feed   table.Feed[K, V]
	target Target[K, V]

	writes  rows[K, V]
	removes map[K]V // values don't count
	refused struct{ writes, removes refused[K, V] }

	// strangers are rows that the target holds from an earlier run and the table doesn't want.
	strangers map[K]V
	removable Removable[K]
	may       func(K) bool // removable's answer of this pass; nil: none may go
	version   uint64       // of may
	asked     uint64       // the version that strangers were last asked about
	loaded    bool
	resync    bool
	loadErr   error
	out       Outcome
}

type rows[K, V comparable] struct {
	keys   []K
	values []V
}

func (r *rows[K, V]) add(key K, value V) {
	r.keys, r.values = append(r.keys, key), append(r.values, value)
}

// Removable says which of the rows that nobody wants may go although the whole table is not known to be complete: those
// of a cluster that is, say. Strangers are asked about again when the version moves. May is nil where none may.
type Removable[K comparable] func() (version uint64, may func(K) bool)

// Follow makes a follower. Nothing happens before its first pass.
func Follow[K, V comparable](t *table.Desired[K, V], target Target[K, V]) *Follower[K, V] {
	return &Follower[K, V]{table: t, target: target, feed: t.Follow()}
}

// PruneBy lets rows go before their table is complete as a whole.
func (f *Follower[K, V]) PruneBy(r Removable[K]) *Follower[K, V] {
	f.removable = r
	return f
}

// Name of the step: its table's.
func (f *Follower[K, V]) Name() string { return f.table.Name() }

// Outcome of the pass at hand.
func (f *Follower[K, V]) Outcome() Outcome { return f.out }

// Load reads the target once and compares it with the table: what is right already is done. While that fails rows are
// written blindly, which is right but not free.
func (f *Follower[K, V]) Load(ctx context.Context) {
	f.out = Outcome{Step: f.Name()}
	if !f.loaded {
		f.load(ctx)
	}
	if f.removable != nil && len(f.strangers) > 0 {
		f.version, f.may = f.removable() // before the table is read, see Pass
	}
}

func (f *Follower[K, V]) load(ctx context.Context) {
	known, err := f.compare(ctx)
	if err == nil && f.resync && known < f.table.Len() {
		// Something is missing. Which rows is not known yet: all are looked for, and those that are there are not written.
		f.feed.Again()
		_, err = f.compare(ctx)
	}
	if err != nil {
		f.loadErr = fmt.Errorf("reading what %s holds: %w", f.Name(), err)
		return
	}
	f.loaded, f.resync, f.loadErr = true, false, nil
}

func (f *Follower[K, V]) compare(ctx context.Context) (known int, err error) {
	f.strangers, f.asked = map[K]V{}, 0
	err = f.target.Have(ctx, func(keys []K, values []V) {
		f.feed.Compare(keys, values, func(i int, held table.Held) {
			switch held {
			case table.Unwanted:
				if !f.refused.removes.has(keys[i]) {
					f.strangers[keys[i]] = values[i]
				}
				return
			case table.Same:
				// Collect won't see this row: whatever waits for it is out of date.
				f.refused.writes.drop(keys[i])
				f.refused.removes.drop(keys[i])
				delete(f.removes, keys[i])
			}
			known++
		})
	})
	return known, err
}

// Resync makes the next pass compare the target with the table once more, as after a start. It repairs what a stranger
// changed, and costs a read where nothing was.
func (f *Follower[K, V]) Resync() { f.loaded, f.resync = false, true }

// Collect takes in the table's changes. The channel closes when there are more.
func (f *Follower[K, V]) Collect(txn *table.Txn) <-chan struct{} {
	return f.feed.Next(txn, func(c table.RowChange[K, V]) {
		f.refused.writes.drop(c.Key)
		f.refused.removes.drop(c.Key)
		if c.Deleted {
			delete(f.strangers, c.Key)
			f.remove(c.Key, c.Value)
			return
		}
		delete(f.removes, c.Key) // one that was still to be removed
		f.writes.add(c.Key, c.Value)
	})
}

// Upsert writes what was added or changed.
func (f *Follower[K, V]) Upsert(ctx context.Context, now time.Time) {
	f.adopt()
	keys, values := f.refused.writes.take(now)
	w := rows[K, V]{append(f.writes.keys, keys...), append(f.writes.values, values...)}
	f.writes = rows[K, V]{}
	for from := 0; from < len(w.keys); from += batch {
		to := min(from+batch, len(w.keys))
		keys, values := w.keys[from:to], w.values[from:to]
		errs := f.target.Update(ctx, keys, values)
		f.feed.Settle(keys, values, errs)
		f.out.Written += f.sort(&f.refused.writes, keys, values, errs, now, "writing")
	}
}

// adopt settles rows that the target held before the table wanted them.
func (f *Follower[K, V]) adopt() {
	if len(f.strangers) == 0 {
		return
	}
	var done rows[K, V]
	kept := f.writes.keys[:0]
	values := f.writes.values[:0]
	for i, key := range f.writes.keys {
		have, held := f.strangers[key]
		delete(f.strangers, key)
		if held && have == f.writes.values[i] {
			done.add(key, have)
			continue
		}
		kept, values = append(kept, key), append(values, f.writes.values[i])
	}
	f.writes = rows[K, V]{kept, values}
	f.feed.Settle(done.keys, done.values, nil)
}

// sort keeps what was refused for a retry and returns how many rows were taken.
func (f *Follower[K, V]) sort(r *refused[K, V], keys []K, values []V, errs []error, now time.Time, doing string) (taken int) {
	last := -1
	for i, key := range keys {
		if errs == nil || errs[i] == nil {
			r.drop(key)
			taken++
			continue
		}
		if errors.Is(errs[i], ErrNotYet) {
			r.drop(key) // waits no longer from time to time
		}
		r.add(key, values[i], now)
		last = i
	}
	if last >= 0 {
		r.reason = fmt.Errorf("%s %s %s: %w", doing, f.Name(), table.Format(keys[last]), errs[last])
	}
	return taken
}

// Refuses says whether the target refused what the table wants at key, and has not taken it since.
func (f *Follower[K, V]) Refuses(key K) bool { return f.refused.writes.has(key) }

// RefusedRows are the rows that the target doesn't hold as the table wants them, because it refused them.
func (f *Follower[K, V]) RefusedRows() map[K]V {
	out := map[K]V{}
	for _, rows := range f.refused.writes.rows {
		maps.Copy(out, rows)
	}
	return out
}

// Refusals counts the rows that are not as the table wants them, because the target refused.
func (f *Follower[K, V]) Refusals() int { return f.refused.writes.len() }

func (f *Follower[K, V]) remove(key K, value V) {
	if f.removes == nil {
		f.removes = map[K]V{}
	}
	f.removes[key] = value
}

// Removing says whether the target may still hold rows that are to go.
func (f *Follower[K, V]) Removing() bool { return len(f.removes)+f.refused.removes.len() > 0 }

// Prune schedules the removal of what the target held at start and the table doesn't want: all of it, or what may go
// by itself.
func (f *Follower[K, V]) Prune(complete bool) {
	if !f.loaded {
		return
	}
	for key, value := range f.strangers {
		if complete || f.may != nil && f.version != f.asked && f.may(key) {
			f.remove(key, value)
			delete(f.strangers, key)
		}
	}
	f.asked = f.version
	if len(f.strangers) == 0 {
		f.strangers, f.may = nil, nil
	}
	f.out.Pruned = complete && len(f.strangers) == 0
}

// Remove deletes what is gone.
func (f *Follower[K, V]) Remove(ctx context.Context, now time.Time) {
	keys, values := f.refused.removes.take(now)
	r := rows[K, V]{keys, values}
	for key, value := range f.removes {
		r.add(key, value)
	}
	f.removes = nil
	for from := 0; from < len(r.keys); from += batch {
		to := min(from+batch, len(r.keys))
		keys, values := r.keys[from:to], r.values[from:to]
		errs := f.target.Delete(ctx, keys)
		f.out.Removed += f.sort(&f.refused.removes, keys, values, errs, now, "removing")
	}
}

// Commit returns when the next retry is due (zero: nothing waits).
func (f *Follower[K, V]) Commit(now time.Time) time.Time {
	f.out.Failing = f.refused.writes.len() + f.refused.removes.len()
	f.out.Err = cmp.Or(f.refused.writes.reason, f.refused.removes.reason)
	next := earlier(f.refused.writes.next(), f.refused.removes.next())
	if f.loadErr != nil {
		f.out.Err = f.loadErr
		next = earlier(next, now.Add(firstRetry))
	}
	return next
}

// earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
