// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"iter"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// RecordWriter is the one way to change records. The intake has it.
type RecordWriter struct{ set *RecordTables }

// RecordWriter hands out the writer, once: it panics the second time, because records with two writers would follow no
// stream at all.
func (r *RecordTables) RecordWriter() *RecordWriter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written {
		panic("table: records have one writer, and somebody has it")
	}
	r.written = true
	return &RecordWriter{set: r}
}

// Write makes all changes of f visible at once. f must not read the tables otherwise than through its argument.
func (w *RecordWriter) Write(f func(RecordTxn)) {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	f(RecordTxn{w.set})
}

// Has says whether a record lies under a key.
func (w *RecordWriter) Has(key string) bool {
	w.set.mu.RLock()
	defer w.set.mu.RUnlock()
	t := w.set.kinds[record.Kind(key)]
	return t != nil && t.has(key)
}

// Keys gives the keys of all records, in no order. The tables are locked against writing while it is ranged over.
func (w *RecordWriter) Keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		w.set.mu.RLock()
		defer w.set.mu.RUnlock()
		for _, t := range w.set.kinds {
			for key := range t.keys() {
				if !yield(key) {
					return
				}
			}
		}
	}
}

// Len is the number of all records.
func (w *RecordWriter) Len() int {
	w.set.mu.RLock()
	defer w.set.mu.RUnlock()
	n := 0
	for _, t := range w.set.kinds {
		n += t.size()
	}
	return n
}

// RecordTxn is valid within Write.
type RecordTxn struct{ set *RecordTables }

// Put files an object under its key, and says whether that changed anything. An object of another kind than its key says
// is not filed, and takes what lies there away. Kinds that only newer agents know are left out.
func (x RecordTxn) Put(key string, o record.Object) (changed bool) {
	t := x.set.kinds[record.Kind(key)]
	return t != nil && t.put(key, o)
}

// Drop removes what lies under a key, and says whether there was anything.
func (x RecordTxn) Drop(key string) (changed bool) {
	t := x.set.kinds[record.Kind(key)]
	return t != nil && t.drop(key)
}

// Has says whether a record lies under a key.
func (x RecordTxn) Has(key string) bool {
	t := x.set.kinds[record.Kind(key)]
	return t != nil && t.has(key)
}
