// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"iter"
	"maps"
	"reflect"
	"sync"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// RecordTables hold what the stream says, a table for each kind of record. They are plain maps and not statedb's: there are
// 250,000 endpoints in a large mesh, and an index entry with its revision costs more than the record. A record is held once,
// parsed. A batch of the stream becomes visible at once: a Follower sees all of it or nothing.
type RecordTables struct {
	Clusters   *Records[*record.Cluster]
	Identities *Records[*record.Identity]
	Nodes      *Records[*record.Node]
	Endpoints  *Records[*record.Endpoint]
	Services   *Records[*record.Service]
	Slices     *Records[*record.Slice]
	Policies   *Records[*Policy]

	mu        sync.RWMutex // over everything here
	kinds     map[string]recordTable
	addresses *addressIndex // of Endpoints; nil while nobody asked
	written   bool          // the writer was handed out
}

// newRecordTables declares each kind of record: its type, and what the agent makes of it.
func newRecordTables() *RecordTables {
	r := &RecordTables{kinds: map[string]recordTable{}}
	r.Clusters = plain[*record.Cluster](r)
	r.Identities = plain[*record.Identity](r)
	r.Nodes = plain[*record.Node](r)
	r.Endpoints = derived(r, shareName, asItIs)
	r.Services = plain[*record.Service](r)
	r.Slices = plain[*record.Slice](r)
	r.Policies = derived(r, newPolicy, (*Policy).record)
	r.Endpoints.changed = r.endpointChanged
	return r
}

// Records is a read view of the table of one kind. Nobody changes what it gives. Its methods may be called from anywhere,
// also while they are being ranged over.
type Records[T comparable] struct {
	set    *RecordTables
	rows   map[string]T
	visits []*visits[T]

	derive  func(key string, o record.Object) (row T, ok bool)
	same    func(T, record.Object) bool
	changed func(key string, before, now T) // may be nil; the zero T is no record
}

// recordTable is a table of any kind, as the writer needs it. The lock is held by the caller.
type recordTable interface {
	put(key string, o record.Object) (changed bool)
	drop(key string) (changed bool)
	has(key string) bool
	keys() iter.Seq[string]
	size() int
}

// derived makes a table whose rows are made from objects once, when they come; object is the way back.
func derived[O record.Object, T comparable](r *RecordTables, derive func(key string, o O) T, object func(T) O) *Records[T] {
	var kind O
	t := &Records[T]{set: r, rows: map[string]T{}}
	t.derive = func(key string, o record.Object) (row T, ok bool) {
		typed, ok := o.(O)
		if !ok {
			return row, false
		}
		return derive(key, typed), true
	}
	t.same = func(row T, o record.Object) bool { return reflect.DeepEqual(record.Object(object(row)), o) }
	r.kinds[kind.Kind()] = t
	return t
}

// plain makes a table whose rows are the objects themselves.
func plain[O object](r *RecordTables) *Records[O] {
	return derived(r, func(_ string, o O) O { return o }, asItIs[O])
}

// object is a pointer to one of mesh/record's types.
type object interface {
	record.Object
	comparable
}

func asItIs[O any](o O) O { return o }

// Get gives the record under a key.
func (t *Records[T]) Get(key string) (T, bool) {
	t.set.mu.RLock()
	defer t.set.mu.RUnlock()
	row, ok := t.rows[key]
	return row, ok
}

// All gives every record by its key, in no order, as they are when it is ranged over. It copies the table.
func (t *Records[T]) All() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		t.set.mu.RLock()
		rows := maps.Clone(t.rows)
		t.set.mu.RUnlock()
		maps.All(rows)(yield)
	}
}

// Len is the number of records.
func (t *Records[T]) Len() int {
	t.set.mu.RLock()
	defer t.set.mu.RUnlock()
	return len(t.rows)
}

func (t *Records[T]) put(key string, o record.Object) bool {
	before, had := t.rows[key]
	if had && t.same(before, o) {
		return false
	}
	now, ok := t.derive(key, o)
	if !ok {
		return t.drop(key)
	}
	t.rows[key] = now
	t.note(key, before, now)
	return true
}

func (t *Records[T]) drop(key string) bool {
	before, had := t.rows[key]
	if !had {
		return false
	}
	delete(t.rows, key)
	var none T
	t.note(key, before, none)
	return true
}

func (t *Records[T]) note(key string, before, now T) {
	for _, v := range t.visits {
		v.note(key, before, now)
	}
	if t.changed != nil {
		t.changed(key, before, now)
	}
}

func (t *Records[T]) has(key string) bool {
	_, ok := t.rows[key]
	return ok
}

func (t *Records[T]) keys() iter.Seq[string] { return maps.Keys(t.rows) }

func (t *Records[T]) size() int { return len(t.rows) }

// shareName lets an endpoint's name be part of the key that is held anyway.
func shareName(key string, e *record.Endpoint) *record.Endpoint {
	if at := len(key) - len(e.Name); at >= 0 && key[at:] == e.Name {
		e.Name = key[at:]
	}
	return e
}
