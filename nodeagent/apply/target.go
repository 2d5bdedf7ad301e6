// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"maps"
	"slices"
)

// Target holds rows: a kernel map, a device, a routing table. All its operations may be repeated.
type Target[K, V comparable] interface {
	// Update makes each key hold its value. It returns nil if all were taken, or else an error (or nil) for each row.
	Update(ctx context.Context, keys []K, values []V) []error
	// Delete removes keys, likewise; that one wasn't there is no error.
	Delete(ctx context.Context, keys []K) []error
	// Have visits what is there from an earlier run. The slices are good during the call only.
	Have(ctx context.Context, visit func(keys []K, values []V)) error
}

// Single is a target that takes one row at a time.
type Single[K, V comparable] interface {
	Update(ctx context.Context, key K, value V) error
	Delete(ctx context.Context, key K) error
	Have(ctx context.Context) (map[K]V, error)
}

// OneByOne makes a target of one that takes one row at a time.
func OneByOne[K, V comparable](s Single[K, V]) Target[K, V] { return oneByOne[K, V]{s} }

type oneByOne[K, V comparable] struct{ single Single[K, V] }

func (o oneByOne[K, V]) Update(ctx context.Context, keys []K, values []V) []error {
	return Each(len(keys), func(i int) error { return o.single.Update(ctx, keys[i], values[i]) })
}

func (o oneByOne[K, V]) Delete(ctx context.Context, keys []K) []error {
	return Each(len(keys), func(i int) error { return o.single.Delete(ctx, keys[i]) })
}

func (o oneByOne[K, V]) Have(ctx context.Context, visit func([]K, []V)) error {
	have, err := o.single.Have(ctx)
	if err != nil || len(have) == 0 {
		return err
	}
	keys := slices.Collect(maps.Keys(have))
	values := make([]V, len(keys))
	for i, key := range keys {
		values[i] = have[key]
	}
	visit(keys, values)
	return nil
}

// Each does n operations and gathers their errors as a [Target] returns them.
func Each(n int, do func(int) error) []error {
	var errs []error
	for i := range n {
		if err := do(i); err != nil {
			if errs == nil {
				errs = make([]error, n)
			}
			errs[i] = err
		}
	}
	return errs
}

// Filter updates the rows for which check returns no error, and returns the check's errors for the others.
func Filter[K, V any](keys []K, values []V, check func(K, V) error, update func([]K, []V) []error) []error {
	var errs []error
	var at []int // where the rows that pass stand among all
	var passKeys []K
	var passValues []V
	for i, key := range keys {
		if err := check(key, values[i]); err != nil {
			if errs == nil {
				errs = make([]error, len(keys))
			}
			errs[i] = err
			continue
		}
		at, passKeys, passValues = append(at, i), append(passKeys, key), append(passValues, values[i])
	}
	for i, err := range update(passKeys, passValues) {
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(keys))
		}
		errs[at[i]] = err
	}
	return errs
}

// All reads everything that a target holds. It is for small targets and tests.
func All[K, V comparable](ctx context.Context, t Target[K, V]) (map[K]V, error) {
	out := map[K]V{}
	err := t.Have(ctx, func(keys []K, values []V) {
		for i, key := range keys {
			out[key] = values[i]
		}
	})
	return out, err
}
