// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Change is a record that came, changed or went since the follower looked last. Of a record that changed several times
// only the first and the last value are seen, and one that came and went in between not at all.
type Change[T comparable] struct {
	Key    string
	Before T // zero: there was none
	Now    T // zero: there is none
}

// Follower sees how records change, beginning with everything that is there. It serves one goroutine, and must be asked
// now and then for as long as it exists: what it has not yet seen is kept for it, once a key.
type Follower struct {
	set     *RecordTables
	parts   map[string]followed
	more    chan struct{}
	pending bool // more is closed
}

// followed is what a follower does with one kind.
type followed interface {
	// take gives a function that visits what changed. The lock is held by the caller of take, not of what it gives.
	take() func()
}

// FollowRecords makes a follower that visits nothing yet: see Visit.
func (r *RecordTables) FollowRecords() *Follower {
	f := &Follower{set: r, parts: map[string]followed{}, more: make(chan struct{}), pending: true}
	close(f.more)
	return f
}

// Visit lets a follower see the changes of one kind. It is called before the follower's first Next.
func Visit[T comparable](f *Follower, t *Records[T], visit func(Change[T])) {
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	v := &visits[T]{follower: f, table: t, visit: visit}
	t.visits = append(t.visits, v)
	for kind, other := range f.set.kinds {
		if other == recordTable(t) {
			f.parts[kind] = v
		}
	}
}

// Next visits what changed, kind by kind in the order of record.Kinds: what is named comes before what names it.
func (f *Follower) Next() {
	f.set.mu.Lock()
	var all []func()
	for _, kind := range record.Kinds() {
		if p := f.parts[kind]; p != nil {
			all = append(all, p.take())
		}
	}
	if f.pending {
		f.more, f.pending = make(chan struct{}), false
	}
	f.set.mu.Unlock()
	for _, visit := range all {
		visit()
	}
}

// Watch closes when there is something that Next has not visited.
func (f *Follower) Watch() <-chan struct{} {
	f.set.mu.RLock()
	defer f.set.mu.RUnlock()
	return f.more
}

func (f *Follower) wake() {
	if !f.pending {
		close(f.more)
		f.pending = true
	}
}

// visits is one kind as one follower sees it.
type visits[T comparable] struct {
	follower *Follower
	table    *Records[T]
	visit    func(Change[T])
	// before is what each key that changed had when it was visited last; nil until everything was visited once.
	before map[string]T
}

func (v *visits[T]) note(key string, before, now T) {
	v.follower.wake()
	if v.before == nil {
		return
	}
	var none T
	seen, changed := v.before[key]
	switch {
	case !changed:
		v.before[key] = before
	case seen == none && now == none:
		delete(v.before, key) // it came and went unseen
	}
}

func (v *visits[T]) take() func() {
	var changes []Change[T]
	if v.before == nil {
		changes = slices.Grow(changes, len(v.table.rows))
		for key, now := range v.table.rows {
			changes = append(changes, Change[T]{Key: key, Now: now})
		}
	} else {
		for key, before := range maps.All(v.before) {
			changes = append(changes, Change[T]{Key: key, Before: before, Now: v.table.rows[key]})
		}
	}
	if v.before == nil || len(v.before) > 0 {
		v.before = map[string]T{}
	}
	return func() {
		for _, c := range changes {
			v.visit(c)
		}
	}
}
