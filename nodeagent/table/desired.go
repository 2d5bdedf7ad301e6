// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"iter"

	"github.com/cilium/statedb"
	"github.com/cilium/statedb/index"
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

// Row wants Value at Key. Owner names what the row was planned from, so that a new plan of the same thing replaces
// exactly the rows of the old one.
type Row[K, V comparable] struct {
	Key    K
	Value  V
	Owner  string
	Status Status
}

// TableHeader names the columns of a printed row.
func (*Row[K, V]) TableHeader() []string { return []string{"Key", "Value", "Owner", "Status"} }

// TableRow prints the row.
func (r *Row[K, V]) TableRow() []string {
	status := r.Status.State.String()
	if r.Status.Error != "" {
		status += ": " + r.Status.Error
	}
	return []string{Format(r.Key), Format(r.Value), r.Owner, status}
}

// Desired is a table of wanted rows.
type Desired[K, V comparable] struct {
	db      *statedb.DB
	rows    statedb.RWTable[*Row[K, V]]
	byKey   statedb.Index[*Row[K, V], K]
	byOwner statedb.Index[*Row[K, V], string]
}

func newDesired[K, V comparable](db *statedb.DB, name string, encode func(K) index.Key) (*Desired[K, V], error) {
	d := &Desired[K, V]{db: db}
	d.byKey = statedb.Index[*Row[K, V], K]{
		Name:       "key",
		FromObject: func(r *Row[K, V]) index.KeySet { return index.NewKeySet(encode(r.Key)) },
		FromKey:    encode,
		Unique:     true,
	}
	d.byOwner = statedb.Index[*Row[K, V], string]{
		Name:       "owner",
		FromObject: func(r *Row[K, V]) index.KeySet { return index.NewKeySet(index.String(r.Owner)) },
		FromKey:    index.String,
	}
	rows, err := statedb.NewTable(db, name, d.byKey, d.byOwner)
	if err != nil {
		return nil, fmt.Errorf("creating table %s: %w", name, err)
	}
	d.rows = rows
	return d, nil
}

// Name of the table.
func (d *Desired[K, V]) Name() string { return d.rows.Name() }

// Meta is what a write transaction locks.
func (d *Desired[K, V]) Meta() statedb.TableMeta { return d.rows }

// Set makes rows the only ones of their owner. Rows that stay as they are keep their status and cost nothing
// downstream. A key that another owner holds changes hands.
func (d *Desired[K, V]) Set(txn statedb.WriteTxn, owner string, rows map[K]V) error {
	var gone []*Row[K, V]
	for row := range d.rows.List(txn, d.byOwner.Query(owner)) {
		if _, keep := rows[row.Key]; !keep {
			gone = append(gone, row)
		}
	}
	for _, row := range gone {
		if _, _, err := d.rows.Delete(txn, row); err != nil {
			return fmt.Errorf("deleting %s from table %s: %w", Format(row.Key), d.Name(), err)
		}
	}
	for key, value := range rows {
		if err := d.put(txn, owner, key, value); err != nil {
			return err
		}
	}
	return nil
}

// Replacer is Set for large parts that one owner plans again and again: it compares with what it set the last time
// instead of with the table, which costs a hundredth where little changed. Nobody else may write the owner's rows.
type Replacer[K, V comparable] struct {
	table *Desired[K, V]
	owner string
	last  map[K]V
}

// NewReplacer begins with an owner who has no rows.
func NewReplacer[K, V comparable](d *Desired[K, V], owner string) *Replacer[K, V] {
	return &Replacer[K, V]{table: d, owner: owner}
}

// Set makes rows the only ones of the owner. It keeps rows: nobody may change them afterwards.
func (r *Replacer[K, V]) Set(txn statedb.WriteTxn, rows map[K]V) error {
	d := r.table
	for key := range r.last {
		if _, keep := rows[key]; keep {
			continue
		}
		// It may have changed hands meanwhile.
		if row, _, ok := d.rows.Get(txn, d.byKey.Query(key)); ok && row.Owner == r.owner {
			if _, _, err := d.rows.Delete(txn, row); err != nil {
				return fmt.Errorf("deleting %s from table %s: %w", Format(key), d.Name(), err)
			}
		}
	}
	for key, value := range rows {
		if before, had := r.last[key]; had && before == value {
			continue
		}
		if err := d.put(txn, r.owner, key, value); err != nil {
			return err
		}
	}
	r.last = rows
	return nil
}

func (d *Desired[K, V]) put(txn statedb.WriteTxn, owner string, key K, value V) error {
	status := Status{}
	if old, _, ok := d.rows.Get(txn, d.byKey.Query(key)); ok && old.Value == value {
		if old.Owner == owner {
			return nil
		}
		status = old.Status
	}
	row := &Row[K, V]{Key: key, Value: value, Owner: owner, Status: status}
	if _, _, err := d.rows.Insert(txn, row); err != nil {
		return fmt.Errorf("writing %s to table %s: %w", Format(key), d.Name(), err)
	}
	return nil
}

// Get returns the row at key.
func (d *Desired[K, V]) Get(txn statedb.ReadTxn, key K) (*Row[K, V], bool) {
	row, _, ok := d.rows.Get(txn, d.byKey.Query(key))
	return row, ok
}

// All yields every row.
func (d *Desired[K, V]) All(txn statedb.ReadTxn) iter.Seq[*Row[K, V]] {
	return statedb.ToSeq(d.rows.All(txn))
}

// Owned yields the rows of an owner.
func (d *Desired[K, V]) Owned(txn statedb.ReadTxn, owner string) iter.Seq[*Row[K, V]] {
	return statedb.ToSeq(d.rows.List(txn, d.byOwner.Query(owner)))
}

// Watch closes when the table changes after txn.
func (d *Desired[K, V]) Watch(txn statedb.ReadTxn) <-chan struct{} {
	_, watch := d.rows.AllWatch(txn)
	return watch
}

// Len returns the number of rows.
func (d *Desired[K, V]) Len(txn statedb.ReadTxn) int { return d.rows.NumObjects(txn) }

// Changes follows the table from its first row on.
func (d *Desired[K, V]) Changes() (statedb.ChangeIterator[*Row[K, V]], error) {
	txn := d.db.WriteTxn(d.rows)
	defer txn.Abort()
	changes, err := d.rows.Changes(txn)
	if err != nil {
		return nil, fmt.Errorf("following table %s: %w", d.Name(), err)
	}
	txn.Commit()
	return changes, nil
}

// Result is what became of a row.
type Result[K, V comparable] struct {
	Row *Row[K, V]
	Err error
}

// SetStatus records results, except of rows that have changed meanwhile: those are pending again.
func (d *Desired[K, V]) SetStatus(results []Result[K, V]) error {
	if len(results) == 0 {
		return nil
	}
	txn := d.db.WriteTxn(d.rows)
	defer txn.Abort()
	for _, r := range results {
		status := Status{State: Done}
		if r.Err != nil {
			status = Status{State: Failed, Error: r.Err.Error()}
		}
		now, _, ok := d.rows.Get(txn, d.byKey.Query(r.Row.Key))
		if !ok || now.Value != r.Row.Value || now.Status == status {
			continue
		}
		updated := *now
		updated.Status = status
		if _, _, err := d.rows.Insert(txn, &updated); err != nil {
			return fmt.Errorf("recording status of %s in table %s: %w", Format(now.Key), d.Name(), err)
		}
	}
	txn.Commit()
	return nil
}

// Count tells how many rows are in each state.
func (d *Desired[K, V]) Count(txn statedb.ReadTxn) (c [3]int) {
	for row := range d.All(txn) {
		c[row.Status.State]++
	}
	return c
}
