// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

type target[K, V comparable] struct {
	rows   map[K]V
	refuse map[K]bool
}

func (t target[K, V]) Update(_ context.Context, k K, v V) error {
	if t.refuse[k] {
		return errors.New("the map is full")
	}
	t.rows[k] = v
	return nil
}

func (t target[K, V]) Delete(_ context.Context, k K) error {
	delete(t.rows, k)
	return nil
}

func (t target[K, V]) Have(context.Context) (map[K]V, error) { return maps.Clone(t.rows), nil }

func TestAFrontendWaitsForItsSlots(t *testing.T) {
	tables := table.New()
	slots := target[bpf.SlotKey, bpf.Backend]{map[bpf.SlotKey]bpf.Backend{}, map[bpf.SlotKey]bool{}}
	front := target[table.Frontend, bpf.Service]{map[table.Frontend]bpf.Service{}, nil}
	steps := Steps(tables, Driver{
		Slots:     apply.OneByOne[bpf.SlotKey, bpf.Backend](slots),
		Frontends: apply.OneByOne[table.Frontend, bpf.Service](front),
	})
	w := tables.ForPlan()
	ownSlots, ownFrontends := table.NewOwned(w.Slots), table.NewOwned(w.Frontends)
	loop, now, key := apply.NewLoop(tables, steps...), time.Unix(0, 0), table.Frontend{Port: 80, Proto: 6}
	round := func(backends uint32) apply.Pass {
		t.Helper()
		rows := map[bpf.SlotKey]bpf.Backend{}
		for i := range backends {
			rows[bpf.SlotKey{Service: 1, Slot: i}] = bpf.Backend{ID: i + 1}
		}
		tables.Write(func(txn *table.Txn) {
			ownSlots.Set(txn, "o", rows)
			ownFrontends.Set(txn, "o", map[table.Frontend]bpf.Service{key: {ID: 1, Backends: backends}})
		})
		now = now.Add(time.Minute)
		return loop.Pass(context.Background(), now, func(string) bool { return true })
	}
	round(1)
	slots.refuse[bpf.SlotKey{Service: 1, Slot: 1}] = true
	if p := round(3); p.Failing() != 2 {
		t.Errorf("failing = %d, want the slot and its frontend", p.Failing())
	}
	if got := front.rows[key].Backends; got != 1 {
		t.Errorf("the frontend counts %d backends while a slot is missing, want the 1 it had", got)
	}
	clear(slots.refuse)
	round(3)
	round(3)
	if got := front.rows[key].Backends; got != 3 {
		t.Errorf("the frontend counts %d backends, want 3", got)
	}
}
