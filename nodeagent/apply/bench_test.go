// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

const many = 100_000

func addresses(identity uint32) map[netip.Addr]bpf.Remote {
	rows := make(map[netip.Addr]bpf.Remote, many)
	for i := range uint32(many) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|i)
		rows[netip.AddrFrom4(a)] = bpf.Remote{Identity: identity}
	}
	return rows
}

// BenchmarkRows measures what tables and followers cost by themselves; the target is a map in memory.
func BenchmarkRows(b *testing.B) {
	begin := func(b *testing.B) (*table.Tables, *Loop, func(map[netip.Addr]bpf.Remote)) {
		tables, err := table.New()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = tables.Close() })
		f, err := Follow(tables.Addresses, newKernel[netip.Addr, bpf.Remote]())
		if err != nil {
			b.Fatal(err)
		}
		loop := NewLoop(tables.DB, f)
		replacer := table.NewReplacer(tables.Addresses, "o")
		return tables, loop, func(rows map[netip.Addr]bpf.Remote) {
			err := tables.Write(func(txn statedb.WriteTxn) error { return replacer.Set(txn, maps.Clone(rows)) }, tables.Addresses.Meta())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := loop.Pass(context.Background(), time.Unix(0, 0), func(string) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("first 100000 rows", func(b *testing.B) {
		rows := addresses(1)
		for b.Loop() {
			_, _, round := begin(b)
			round(rows)
		}
	})
	b.Run("10 of 100000 rows changed", func(b *testing.B) {
		_, _, round := begin(b)
		rows := addresses(1)
		round(rows)
		identity := uint32(1)
		for b.Loop() {
			identity++
			n := 0
			for k := range rows {
				rows[k] = bpf.Remote{Identity: identity}
				if n++; n == 10 {
					break
				}
			}
			round(rows)
		}
	})
}
