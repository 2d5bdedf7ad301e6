// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

// RowChange is a row that came, or came anew, or that is gone.
type RowChange[K, V comparable] struct {
	Key     K
	Value   V
	Deleted bool
}

// Changes is what one reader has not seen of a table yet. A reader that is late costs a key for each row that changed,
// once, however often it did.
type Changes[K, V comparable] struct {
	table *Desired[K, V]
	fresh map[K]struct{}
}

// Changes follows the table from its first row on.
func (d *Desired[K, V]) Changes() *Changes[K, V] {
	d.lock.Lock()
	defer d.lock.Unlock()
	c := &Changes[K, V]{table: d, fresh: make(map[K]struct{}, len(d.rows))}
	for key := range d.rows {
		c.fresh[key] = struct{}{}
	}
	d.readers = append(d.readers, c)
	return c
}

// Next returns what changed since the last call, in no order. The channel closes when there is more.
func (c *Changes[K, V]) Next() ([]RowChange[K, V], <-chan struct{}) {
	c.table.lock.Lock()
	defer c.table.lock.Unlock()
	var out []RowChange[K, V]
	if len(c.fresh) > 0 {
		out = make([]RowChange[K, V], 0, len(c.fresh))
	}
	return out, c.each(func(change RowChange[K, V]) { out = append(out, change) })
}

func (c *Changes[K, V]) each(visit func(RowChange[K, V])) <-chan struct{} {
	for key := range c.fresh {
		value, ok := c.table.rows[key]
		visit(RowChange[K, V]{Key: key, Value: value, Deleted: !ok})
	}
	if len(c.fresh) > 0 {
		c.fresh = map[K]struct{}{}
	}
	return c.table.watching()
}

// Feed is a table as the one who brings it to a target reads it: he also says what became of the rows.
type Feed[K, V comparable] struct{ changes *Changes[K, V] }

// Follow begins with every row, none of which counts as done. A table has one feed.
func (d *Desired[K, V]) Follow() Feed[K, V] {
	f := Feed[K, V]{changes: d.Changes()}
	d.lock.Lock()
	defer d.lock.Unlock()
	d.followed = true
	for key := range d.rows {
		d.mark(key, nil)
	}
	return f
}

// Next visits what changed since the last call. The transaction makes several tables be read at one moment.
func (f Feed[K, V]) Next(_ *Txn, visit func(RowChange[K, V])) <-chan struct{} {
	return f.changes.each(visit)
}

// Held is how a row that a target holds compares with the table.
type Held uint8

// A row that the target holds is in the table as well, with another value, or not at all.
const (
	Same Held = iota
	Other
	Unwanted
)

// Compare takes rows that the target holds. Those that are as the table wants them are done and no longer among the
// changes; those that have another value are.
func (f Feed[K, V]) Compare(keys []K, values []V, visit func(int, Held)) {
	d := f.changes.table
	d.lock.Lock()
	defer d.lock.Unlock()
	for i, key := range keys {
		want, ok := d.rows[key]
		switch {
		case !ok:
			visit(i, Unwanted)
		case want == values[i]:
			d.close(key)
			delete(f.changes.fresh, key)
			visit(i, Same)
		default:
			f.changes.fresh[key] = struct{}{}
			visit(i, Other)
		}
	}
}

// Again makes every row a change.
func (f Feed[K, V]) Again() {
	d := f.changes.table
	d.lock.Lock()
	defer d.lock.Unlock()
	for key := range d.rows {
		f.changes.fresh[key] = struct{}{}
	}
}

// Settle records what became of rows: errs is nil, or says of each row why it was refused. Rows that have changed
// meanwhile stay pending.
func (f Feed[K, V]) Settle(keys []K, values []V, errs []error) {
	d := f.changes.table
	d.lock.Lock()
	defer d.lock.Unlock()
	for i, key := range keys {
		if now, ok := d.rows[key]; !ok || now != values[i] {
			continue
		}
		if errs != nil && errs[i] != nil {
			d.mark(key, errs[i])
		} else {
			d.close(key)
		}
	}
}
