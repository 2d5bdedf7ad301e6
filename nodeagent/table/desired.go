// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"iter"
	"sync"
)

// State says how far a desired row got.
type State uint8

// The states of a row.
const (
	Pending State = iota // not yet in the kernel as it stands here
	Done                 // in the kernel
	Failed               // the kernel (or what is needed first) refused; it is retried
)

func (s State) String() string {
	switch s {
	case Done:
		return "done"
	case Failed:
		return "failed"
	}
	return "pending"
}

// Status is a row's state and, when it failed, why.
type Status struct {
	State State
	Error string
}

// Row wants Value at Key.
type Row[K, V comparable] struct {
	Key    K
	Value  V
	Status Status
}

// Desired is a table of wanted rows, as whoever reads it sees it. Its methods take the lock that all desired tables
// share: inside [Tables.Write] use the [Writer]'s.
//
// A row that the target holds costs its key and value and nothing else; what is known about a row beyond that is kept
// only while the row is not done.
type Desired[K, V comparable] struct {
	lock *sync.Mutex
	name string
	rows map[K]V
	// open are the rows that are not done. The value says why the target refused one; nil: it wasn't tried yet.
	open   map[K]error
	failed int
	// six tells the keys that lie in the map for IPv6; nil: there is one map.
	six      func(K) bool
	sixes    int
	readers  []*Changes[K, V]
	followed bool
	watch    chan struct{} // nil: nobody waits
}

func newDesired[K, V comparable](lock *sync.Mutex, name string) *Desired[K, V] {
	return &Desired[K, V]{lock: lock, name: name, rows: map[K]V{}, open: map[K]error{}}
}

// Name of the table.
func (d *Desired[K, V]) Name() string { return d.name }

// Get returns the row at key.
func (d *Desired[K, V]) Get(key K) (Row[K, V], bool) {
	d.lock.Lock()
	defer d.lock.Unlock()
	return d.get(key)
}

func (d *Desired[K, V]) get(key K) (Row[K, V], bool) {
	value, ok := d.rows[key]
	if !ok {
		return Row[K, V]{}, false
	}
	return Row[K, V]{Key: key, Value: value, Status: d.status(key)}, true
}

func (d *Desired[K, V]) status(key K) Status {
	err, open := d.open[key]
	switch {
	case !open:
		return Status{State: Done}
	case err == nil:
		return Status{State: Pending}
	}
	return Status{State: Failed, Error: fmt.Sprintf("writing %s %s: %v", d.name, Format(key), err)}
}

// All yields every row, as they were when the iteration began. It copies them: it is for small tables and for dumps.
func (d *Desired[K, V]) All() iter.Seq[Row[K, V]] {
	return func(yield func(Row[K, V]) bool) {
		d.lock.Lock()
		rows := make([]Row[K, V], 0, len(d.rows))
		for key := range d.rows {
			row, _ := d.get(key)
			rows = append(rows, row)
		}
		d.lock.Unlock()
		for _, row := range rows {
			if !yield(row) {
				return
			}
		}
	}
}

// Each visits every row until visit returns false, with its state and why the target refused it. The tables are locked
// meanwhile: visit must use none of them.
func (d *Desired[K, V]) Each(visit func(key K, value V, state State, refusal error) bool) {
	d.lock.Lock()
	defer d.lock.Unlock()
	for key, value := range d.rows {
		refusal, open := d.open[key]
		state := Done
		if open && refusal == nil {
			state = Pending
		} else if open {
			state = Failed
		}
		if !visit(key, value, state, refusal) {
			return
		}
	}
}

// FailedRows returns rows that the target refused, at most limit of them. It costs the rows that are not done.
func (d *Desired[K, V]) FailedRows(limit int) []Row[K, V] {
	d.lock.Lock()
	defer d.lock.Unlock()
	var out []Row[K, V]
	for key, err := range d.open {
		if len(out) == limit {
			break
		}
		if err != nil {
			row, _ := d.get(key)
			out = append(out, row)
		}
	}
	return out
}

// Len returns the number of rows.
func (d *Desired[K, V]) Len() int {
	d.lock.Lock()
	defer d.lock.Unlock()
	return len(d.rows)
}

// Families returns how many rows are for IPv4 and for IPv6; for other tables all count as IPv4.
func (d *Desired[K, V]) Families() (four, six int) {
	d.lock.Lock()
	defer d.lock.Unlock()
	return len(d.rows) - d.sixes, d.sixes
}

// Count returns how many rows are in each state. The counts are kept: it costs nothing.
func (d *Desired[K, V]) Count() (c [3]int) {
	d.lock.Lock()
	defer d.lock.Unlock()
	c[Failed] = d.failed
	c[Pending] = len(d.open) - d.failed
	c[Done] = len(d.rows) - len(d.open)
	return c
}

// Watch closes when the table changes.
func (d *Desired[K, V]) Watch() <-chan struct{} {
	d.lock.Lock()
	defer d.lock.Unlock()
	return d.watching()
}

func (d *Desired[K, V]) watching() <-chan struct{} {
	if d.watch == nil {
		d.watch = make(chan struct{})
	}
	return d.watch
}

func (d *Desired[K, V]) put(key K, value V) {
	old, had := d.rows[key]
	if had && old == value {
		return
	}
	d.rows[key] = value
	if !had {
		d.sixes += d.isSix(key)
	}
	if d.followed {
		d.mark(key, nil)
	}
	d.changed(key)
}

func (d *Desired[K, V]) remove(key K) {
	if _, had := d.rows[key]; !had {
		return
	}
	delete(d.rows, key)
	d.sixes -= d.isSix(key)
	d.close(key)
	d.changed(key)
}

func (d *Desired[K, V]) isSix(key K) int {
	if d.six != nil && d.six(key) {
		return 1
	}
	return 0
}

// mark makes a row open: refused for err, or not tried yet.
func (d *Desired[K, V]) mark(key K, err error) {
	if d.open[key] != nil {
		d.failed--
	}
	d.open[key] = err
	if err != nil {
		d.failed++
	}
}

// close makes a row done, or forgets it.
func (d *Desired[K, V]) close(key K) {
	if d.open[key] != nil {
		d.failed--
	}
	delete(d.open, key)
	if len(d.open) == 0 {
		d.open = map[K]error{} // a map never gives back the room it once took
	}
}

func (d *Desired[K, V]) changed(key K) {
	for _, r := range d.readers {
		r.fresh[key] = struct{}{}
	}
	if d.watch != nil {
		close(d.watch)
		d.watch = nil
	}
}
