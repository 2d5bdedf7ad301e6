// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

// overlay lets two write one table: what the upper one wants at a key counts, what the lower one wants waits beneath.
// Only keys that both want are kept twice.
type overlay[K, V comparable] struct {
	table   *Desired[K, V]
	upper   map[K]V
	beneath map[K]V // of the lower one, where the upper one has a row
}

func newOverlay[K, V comparable](d *Desired[K, V]) *overlay[K, V] {
	return &overlay[K, V]{table: d, upper: map[K]V{}, beneath: map[K]V{}}
}

type upper[K, V comparable] struct{ o *overlay[K, V] }

func (u upper[K, V]) Put(_ *Txn, key K, value V) {
	if _, has := u.o.upper[key]; !has {
		if below, ok := u.o.table.rows[key]; ok {
			u.o.beneath[key] = below
		}
	}
	u.o.upper[key] = value
	u.o.table.put(key, value)
}

func (u upper[K, V]) Delete(_ *Txn, key K) {
	if _, has := u.o.upper[key]; !has {
		return
	}
	delete(u.o.upper, key)
	below, ok := u.o.beneath[key]
	delete(u.o.beneath, key)
	if ok {
		u.o.table.put(key, below)
	} else {
		u.o.table.remove(key)
	}
}

func (u upper[K, V]) Get(_ *Txn, key K) (V, bool) {
	value, ok := u.o.upper[key]
	return value, ok
}

type lower[K, V comparable] struct{ o *overlay[K, V] }

func (l lower[K, V]) Put(_ *Txn, key K, value V) {
	if _, covered := l.o.upper[key]; covered {
		l.o.beneath[key] = value
		return
	}
	l.o.table.put(key, value)
}

func (l lower[K, V]) Delete(_ *Txn, key K) {
	if _, covered := l.o.upper[key]; covered {
		delete(l.o.beneath, key)
		return
	}
	l.o.table.remove(key)
}

func (l lower[K, V]) Get(_ *Txn, key K) (V, bool) {
	if _, covered := l.o.upper[key]; covered {
		value, ok := l.o.beneath[key]
		return value, ok
	}
	value, ok := l.o.table.rows[key]
	return value, ok
}
