// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// kube-proxy leads to a backend that found no room in fl_slots, and policy must not go on judging by the others alone. A row of no
// backends is one that leads nobody knows where.
func TestReviewARefusedBackendMakesTheServiceUnknown(t *testing.T) {
	tables := table.New()
	slots := target[bpf.SlotKey, bpf.Backend]{map[bpf.SlotKey]bpf.Backend{}, map[bpf.SlotKey]bool{{Service: 1, Slot: 1}: true}}
	front := target[table.Frontend, bpf.Service]{map[table.Frontend]bpf.Service{}, nil}
	steps := Steps(tables, Driver{
		Slots: apply.OneByOne[bpf.SlotKey, bpf.Backend](slots), Frontends: apply.OneByOne[table.Frontend, bpf.Service](front),
	})
	w := tables.ForPlan()
	ownSlots, ownFrontends := table.NewOwned(w.Slots), table.NewOwned(w.Frontends)
	loop, key := apply.NewLoop(tables, steps...), table.Frontend{Port: 30080, Proto: 6}
	for backends := range uint32(2) {
		rows := map[bpf.SlotKey]bpf.Backend{}
		for i := range backends + 1 {
			rows[bpf.SlotKey{Service: 1, Slot: i}] = bpf.Backend{ID: i + 1}
		}
		tables.Write(func(txn *table.Txn) {
			ownSlots.Set(txn, "o", rows)
			ownFrontends.Set(txn, "o", map[table.Frontend]bpf.Service{key: {ID: 1, Backends: backends + 1, Flags: bpf.ServicePolicyOnly}})
		})
		loop.Pass(context.Background(), time.Unix(int64(backends)*60, 0), func(string) bool { return true })
	}
	if row, there := front.rows[key]; !there || row.Backends == 1 {
		t.Errorf("two backends, and policy judges by %d (row %t)", row.Backends, there)
	}
}
