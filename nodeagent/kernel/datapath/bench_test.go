// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// BenchmarkFill measures what it takes from rows in the tables to rows in real maps.
func BenchmarkFill(b *testing.B) {
	if err := rlimit.RemoveMemlock(); err != nil {
		b.Fatal(err)
	}
	maps, _, _, err := bpf.OpenMaps("", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer maps.Close()
	d := &Datapath{maps: maps}
	always := func(string) bool { return true }
	pass := func(b *testing.B, l *apply.Loop) {
		if p := l.Pass(context.Background(), time.Unix(0, 0), always); p.Failing() > 0 {
			b.Fatalf("%d rows fail", p.Failing())
		}
	}
	begin := func(b *testing.B) *table.Tables {
		tables := table.New()
		return tables
	}
	const addresses = 250_000
	address := func(i uint32) netip.Addr {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|i)
		return netip.AddrFrom4(a)
	}
	fill := func(b *testing.B, identity uint32) *apply.Loop {
		tables := begin(b)
		to := tables.ForPlan().Addresses
		tables.Write(func(txn *table.Txn) {
			for i := range uint32(addresses) {
				to.Put(txn, address(i), bpf.Remote{Identity: identity})
			}
		})
		return apply.NewLoop(tables, apply.Follow(tables.Addresses, apply.Target[netip.Addr, bpf.Remote](d.Addresses())))
	}
	identity := uint32(1000)
	b.Run("250000 addresses written", func(b *testing.B) {
		for b.Loop() {
			identity++
			pass(b, fill(b, identity))
		}
	})
	b.Run("250000 addresses found as they are", func(b *testing.B) {
		for b.Loop() {
			pass(b, fill(b, identity))
		}
	})
	b.Run("one of 250000 addresses", func(b *testing.B) {
		tables := begin(b)
		to := tables.ForPlan().Addresses
		loop := apply.NewLoop(tables, apply.Follow(tables.Addresses, apply.Target[netip.Addr, bpf.Remote](d.Addresses())))
		pass(b, loop)
		for b.Loop() {
			identity++
			tables.Write(func(txn *table.Txn) { to.Put(txn, address(7), bpf.Remote{Identity: identity}) })
			pass(b, loop)
		}
	})
	b.Run("5000 services of 10 backends", func(b *testing.B) {
		for b.Loop() {
			identity++
			tables := begin(b)
			w := tables.ForPlan()
			tables.Write(func(txn *table.Txn) {
				for i := range uint32(5000) {
					w.Frontends.Put(txn, table.Frontend{Addr: address(i), Port: 80, Proto: 6}, bpf.Service{ID: i + 1, Backends: 10})
					for slot := range uint32(10) {
						w.Slots.Put(txn, bpf.SlotKey{Service: i + 1, Slot: slot}, bpf.Backend{ID: identity + slot, Port: 8080, Family: 2})
					}
				}
			})
			pass(b, apply.NewLoop(tables, services.Steps(tables, services.Driver{Slots: d.Slots(), Frontends: d.Frontends()})...))
		}
	})
}
