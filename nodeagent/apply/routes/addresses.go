// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// addresses is the step of the exact addresses. After rows changed it raises the epochs of their addresses, once a pass,
// so that running flows with them are judged anew, by rows that are in place.
type addresses struct {
	*apply.Follower[netip.Addr, bpf.Remote]
	epochs  apply.Target[uint32, uint32]
	current map[uint32]uint32 // by index; nil: not read yet
	owed    map[uint32]struct{}
	out     apply.Outcome
	retry   time.Time
}

// newAddresses makes the step. A row goes if its successor is refused: its address falls back to its range, which vouches
// for nobody. An address that lies in no such range would be the world's: policy closes what depends on it.
func newAddresses(t *table.Tables, d Driver, may apply.Removable[netip.Addr]) *addresses {
	a := &addresses{epochs: d.AddressEpochs, owed: map[uint32]struct{}{}}
	a.Follower = apply.Follow[netip.Addr, bpf.Remote](t.Addresses, bumping{apply.DropRefused(d.Addresses), a}).PruneBy(may)
	return a
}

// bumping notes whose epochs are owed. Rows that failed count as well: they may be gone.
type bumping struct {
	apply.Target[netip.Addr, bpf.Remote]
	step *addresses
}

func (b bumping) Update(ctx context.Context, keys []netip.Addr, values []bpf.Remote) []error {
	b.step.owe(keys)
	return b.Target.Update(ctx, keys, values)
}

func (b bumping) Delete(ctx context.Context, keys []netip.Addr) []error {
	b.step.owe(keys)
	return b.Target.Delete(ctx, keys)
}

func (a *addresses) owe(keys []netip.Addr) {
	for _, key := range keys {
		a.owed[bpf.AddressEpochIndex(key)] = struct{}{}
	}
}

// Upsert writes rows, then epochs.
func (a *addresses) Upsert(ctx context.Context, now time.Time) {
	a.retry, a.out = time.Time{}, apply.Outcome{}
	a.Follower.Upsert(ctx, now)
	a.raise(ctx, now)
}

// Remove removes rows, then raises epochs.
func (a *addresses) Remove(ctx context.Context, now time.Time) {
	a.Follower.Remove(ctx, now)
	a.raise(ctx, now)
}

// retryEpochs is when epochs that could not be raised are tried again.
const retryEpochs = 100 * time.Millisecond

func (a *addresses) raise(ctx context.Context, now time.Time) {
	if len(a.owed) == 0 {
		return
	}
	if err := a.write(ctx); err != nil {
		a.out.Err, a.retry = fmt.Errorf("raising the epochs of addresses: %w", err), now.Add(retryEpochs)
		a.current = nil
	}
}

func (a *addresses) write(ctx context.Context) error {
	if a.current == nil {
		current, err := apply.All(ctx, a.epochs)
		if err != nil {
			return err
		}
		a.current = current
	}
	indexes := slices.Collect(maps.Keys(a.owed))
	values := make([]uint32, len(indexes))
	for i, index := range indexes {
		values[i] = a.current[index] + 1
	}
	if err := errors.Join(a.epochs.Update(ctx, indexes, values)...); err != nil {
		return err
	}
	for i, index := range indexes {
		a.current[index] = values[i]
	}
	clear(a.owed)
	return nil
}

// Outcome of the pass at hand.
func (a *addresses) Outcome() apply.Outcome {
	out := a.Follower.Outcome()
	if a.out.Err != nil {
		out.Err = a.out.Err
	}
	return out
}

// Commit returns when the next retry is due.
func (a *addresses) Commit(now time.Time) time.Time {
	next := a.Follower.Commit(now)
	if !a.retry.IsZero() && (next.IsZero() || a.retry.Before(next)) {
		return a.retry
	}
	return next
}
