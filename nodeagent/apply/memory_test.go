// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// nowhere takes every row and holds none.
type nowhere[K, V comparable] struct{}

func (nowhere[K, V]) Update(context.Context, []K, []V) []error   { return nil }
func (nowhere[K, V]) Delete(context.Context, []K) []error        { return nil }
func (nowhere[K, V]) Have(context.Context, func([]K, []V)) error { return nil }

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A row that is done must not cost more than its key, its value and their place in a map: an agent has 250,000 of them.
func TestADoneRowIsSmall(t *testing.T) {
	const rows, limit = 250_000, 100
	tables := table.New()
	loop := NewLoop(tables, Follow(tables.Addresses, Target[netip.Addr, bpf.Remote](nowhere[netip.Addr, bpf.Remote]{})))
	to := tables.ForPlan().Addresses
	before := heap()
	tables.Write(func(txn *table.Txn) {
		for i := range uint32(rows) {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 10<<24|i)
			to.Put(txn, netip.AddrFrom4(a), bpf.Remote{Identity: i})
		}
	})
	loop.Pass(context.Background(), time.Unix(0, 0), func(string) bool { return true })
	if perRow := (heap() - before) / rows; perRow > limit {
		t.Errorf("a row costs %d bytes, at most %d are allowed", perRow, limit)
	} else {
		t.Logf("a row costs %d bytes", perRow)
	}
	if done := tables.Addresses.Count()[table.Done]; done != rows {
		t.Errorf("%d rows of %d are done", done, rows)
	}
	runtime.KeepAlive(loop)
}
