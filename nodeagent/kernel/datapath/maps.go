// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// lookupBatch is how many rows are read at a time. A hash map needs it to be larger than its fullest bucket.
const lookupBatch = 4096

// FullError says that a map has no room for another row.
type FullError struct {
	Map  string
	Size uint32 // rows
}

func (e *FullError) Error() string {
	return fmt.Sprintf("map %s is full with %d rows: raise it with --map-sizes=%s=ROWS", e.Map, e.Size, e.Map)
}

// Map is one kernel map whose rows are the generated structs themselves.
type Map[K, V comparable] struct {
	name string
	m    *ebpf.Map
}

// Update writes rows, many to a system call. A kernel that refuses one of them stops there and says how many it took
// (generic_map_update_batch in kernel/bpf/syscall.c): the next call goes on behind it.
func (d Map[K, V]) Update(_ context.Context, keys []K, values []V) []error {
	return d.batches(len(keys),
		func(from int) (int, error) { return d.m.BatchUpdate(keys[from:], values[from:], nil) },
		func(i int) error { return d.m.Update(&keys[i], &values[i], ebpf.UpdateAny) })
}

// Delete removes rows; those that are not there are no error.
func (d Map[K, V]) Delete(_ context.Context, keys []K) []error {
	return d.batches(len(keys),
		func(from int) (int, error) { return d.m.BatchDelete(keys[from:], nil) },
		func(i int) error { return d.m.Delete(&keys[i]) })
}

// batches does n operations: all at once, then, after one that failed, the rest. single is for kernels and maps that
// know no batches, and repeats the operation that failed for its own error.
func (d Map[K, V]) batches(n int, batch func(from int) (int, error), single func(int) error) (errs []error) {
	one := func(i int) error {
		err := d.explain(single(i))
		if err != nil {
			if errs == nil {
				errs = make([]error, n)
			}
			errs[i] = err
		}
		return err
	}
	batched := n > 1
	for at := 0; at < n; {
		if !batched {
			_ = one(at)
			at++
			continue
		}
		done, err := batch(at)
		if err == nil {
			return errs
		}
		if done >= n-at {
			done = 0 // refused as a whole, before the first row
		}
		at += done
		// In a full map each row needs an answer of its own, since rows that are there can still be written; so it does
		// where there are no batches.
		batched = one(at) == nil && !errors.Is(err, ebpf.ErrNotSupported)
		at++
	}
	return errs
}

// explain says what an error means for this map.
func (d Map[K, V]) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC): // a hash says the first, a trie the second
		return &FullError{Map: d.name, Size: d.m.MaxEntries()}
	}
	return fmt.Errorf("map %s: %w", d.name, err)
}

// Have visits all rows.
func (d Map[K, V]) Have(_ context.Context, visit func([]K, []V)) error {
	keys, values := make([]K, lookupBatch), make([]V, lookupBatch)
	var cursor ebpf.MapBatchCursor
	for first := true; ; first = false {
		n, err := d.m.BatchLookup(&cursor, keys, values, nil)
		if first && errors.Is(err, ebpf.ErrNotSupported) {
			return d.iterate(visit)
		}
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("reading map %s: %w", d.name, err)
		}
		if n > 0 {
			visit(keys[:n], values[:n])
		}
		if last {
			return nil
		}
	}
}

func (d Map[K, V]) iterate(visit func([]K, []V)) error {
	keys, values := make([]K, 1), make([]V, 1)
	it := d.m.Iterate()
	for it.Next(&keys[0], &values[0]) {
		visit(keys, values)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading map %s: %w", d.name, err)
	}
	return nil
}

// array is a map whose rows are always there: what nobody wants is a zero.
type array[K, V comparable] struct {
	Map[uint32, V]
	index func(K) uint32
	key   func(uint32) K
}

func (d array[K, V]) Update(ctx context.Context, keys []K, values []V) []error {
	return d.Map.Update(ctx, d.indexes(keys), values)
}

func (d array[K, V]) Delete(ctx context.Context, keys []K) []error {
	return d.Map.Update(ctx, d.indexes(keys), make([]V, len(keys)))
}

func (d array[K, V]) Have(ctx context.Context, visit func([]K, []V)) error {
	var keys []K
	var values []V
	return d.Map.Have(ctx, func(indexes []uint32, all []V) {
		keys, values = keys[:0], values[:0]
		var zero V
		for i, index := range indexes {
			if all[i] != zero {
				keys, values = append(keys, d.key(index)), append(values, all[i])
			}
		}
		if len(keys) > 0 {
			visit(keys, values)
		}
	})
}

func (d array[K, V]) indexes(keys []K) []uint32 {
	out := make([]uint32, len(keys))
	for i, key := range keys {
		out[i] = d.index(key)
	}
	return out
}
