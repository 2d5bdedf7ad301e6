// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"maps"
	"slices"
)

// Txn is a moment in which nobody else reads or writes desired rows. It ends with the function it was handed to.
type Txn struct{ _ [0]func() }

// Write changes desired rows: readers see all of what f does, or nothing. f must not call the tables' own methods, which
// wait for it to end.
func (t *Tables) Write(f func(*Txn)) {
	t.lock.Lock()
	defer t.lock.Unlock()
	f(&Txn{})
}

// Read runs f while nobody writes desired rows.
func (t *Tables) Read(f func(*Txn)) { t.Write(f) }

// Writer is a table as who may write it sees it.
type Writer[K, V comparable] interface {
	// Put makes key hold value. A row that stays as it is costs nothing downstream.
	Put(txn *Txn, key K, value V)
	// Delete removes key, which need not be there.
	Delete(txn *Txn, key K)
	// Get returns what this writer wants at key.
	Get(txn *Txn, key K) (V, bool)
}

type writer[K, V comparable] struct{ table *Desired[K, V] }

func (w writer[K, V]) Put(_ *Txn, key K, value V) { w.table.put(key, value) }

func (w writer[K, V]) Delete(_ *Txn, key K) { w.table.remove(key) }

func (w writer[K, V]) Get(_ *Txn, key K) (V, bool) {
	value, ok := w.table.rows[key]
	return value, ok
}

// Owned writes rows that belong to owners, each of whom has few: what one owner no longer has goes, whatever the others
// have.
type Owned[K, V comparable] struct {
	to    Writer[K, V]
	rows  map[string]map[K]V
	owner map[K]string // whose value the table has
}

// NewOwned begins with no rows.
func NewOwned[K, V comparable](to Writer[K, V]) *Owned[K, V] {
	return &Owned[K, V]{to: to, rows: map[string]map[K]V{}, owner: map[K]string{}}
}

// Set makes rows the only ones of an owner; nobody may change the map afterwards. A key that another owner has too
// holds the value of the one who set it last, and returns to the other when that one gives it up.
func (o *Owned[K, V]) Set(txn *Txn, owner string, rows map[K]V) {
	before := o.rows[owner]
	if maps.Equal(before, rows) {
		return
	}
	if len(rows) == 0 {
		delete(o.rows, owner)
	} else {
		o.rows[owner] = rows
	}
	for key := range before {
		if _, keep := rows[key]; !keep && o.owner[key] == owner {
			o.inherit(txn, key)
		}
	}
	for key, value := range rows {
		if had, ok := before[key]; ok && had == value {
			continue
		}
		o.owner[key] = owner
		o.to.Put(txn, key, value)
	}
}

// inherit gives a key to another owner who has it, the first by name.
func (o *Owned[K, V]) inherit(txn *Txn, key K) {
	var heirs []string
	for owner, rows := range o.rows {
		if _, has := rows[key]; has {
			heirs = append(heirs, owner)
		}
	}
	if len(heirs) == 0 {
		delete(o.owner, key)
		o.to.Delete(txn, key)
		return
	}
	heir := slices.Min(heirs)
	o.owner[key] = heir
	o.to.Put(txn, key, o.rows[heir][key])
}

// Of returns an owner's rows. Nobody changes the map.
func (o *Owned[K, V]) Of(owner string) map[K]V { return o.rows[owner] }
