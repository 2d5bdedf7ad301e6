// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import "context"

// Dropping is a target for rows of which an old one must not outlive its successor, even if the successor is refused:
// the row goes then, and whatever looks for it finds nothing.
type Dropping[K, V comparable] struct {
	Target[K, V]
	stale map[K]struct{}
}

// DropRefused makes such a target.
func DropRefused[K, V comparable](t Target[K, V]) *Dropping[K, V] {
	return &Dropping[K, V]{Target: t, stale: map[K]struct{}{}}
}

// Stale counts the rows that could neither be replaced nor removed.
func (d *Dropping[K, V]) Stale() int { return len(d.stale) }

// Update writes rows, and removes those that it can't write.
func (d *Dropping[K, V]) Update(ctx context.Context, keys []K, values []V) []error {
	errs := d.Target.Update(ctx, keys, values)
	var drop []K
	for i, key := range keys {
		delete(d.stale, key)
		if errs != nil && errs[i] != nil {
			drop = append(drop, key)
		}
	}
	if len(drop) > 0 {
		d.mark(drop, d.Target.Delete(ctx, drop))
	}
	return errs
}

// Delete removes rows.
func (d *Dropping[K, V]) Delete(ctx context.Context, keys []K) []error {
	errs := d.Target.Delete(ctx, keys)
	for i, key := range keys {
		if errs == nil || errs[i] == nil {
			delete(d.stale, key)
		}
	}
	return errs
}

func (d *Dropping[K, V]) mark(keys []K, errs []error) {
	for i, err := range errs {
		if err != nil {
			d.stale[keys[i]] = struct{}{}
		}
	}
}
