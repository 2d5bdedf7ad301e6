// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

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
	type world struct {
		tables *table.Tables
		to     table.Writer[netip.Addr, bpf.Remote]
		loop   *Loop
	}
	begin := func(b *testing.B) world {
		tables := table.New()
		f := Follow(tables.Addresses, OneByOne[netip.Addr, bpf.Remote](newKernel[netip.Addr, bpf.Remote]()))
		return world{tables, tables.ForPlan().Addresses, NewLoop(tables, f)}
	}
	round := func(w world, rows map[netip.Addr]bpf.Remote) {
		w.tables.Write(func(txn *table.Txn) {
			for key, value := range rows {
				w.to.Put(txn, key, value)
			}
		})
		w.loop.Pass(context.Background(), time.Unix(0, 0), func(string) bool { return true })
	}
	b.Run("first 100000 rows", func(b *testing.B) {
		rows := addresses(1)
		for b.Loop() {
			round(begin(b), rows)
		}
	})
	b.Run("10 of 100000 rows changed", func(b *testing.B) {
		w := begin(b)
		rows := addresses(1)
		round(w, rows)
		identity := uint32(1)
		changed := map[netip.Addr]bpf.Remote{}
		for key := range rows {
			if changed[key] = (bpf.Remote{}); len(changed) == 10 {
				break
			}
		}
		for b.Loop() {
			identity++
			for key := range changed {
				changed[key] = bpf.Remote{Identity: identity}
			}
			round(w, changed)
		}
	})
}
