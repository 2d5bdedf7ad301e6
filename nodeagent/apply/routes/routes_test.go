// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// memory is a target that can be made to refuse. log gets the name of each operation.
type memory[K, V comparable] struct {
	rows   map[K]V
	refuse bool
	name   string
	log    *[]string
}

func (m *memory[K, V]) Update(_ context.Context, keys []K, values []V) []error {
	*m.log = append(*m.log, m.name)
	return apply.Each(len(keys), func(i int) error {
		if m.refuse {
			return errors.New("refused")
		}
		m.rows[keys[i]] = values[i]
		return nil
	})
}

func (m *memory[K, V]) Delete(_ context.Context, keys []K) []error {
	for _, key := range keys {
		delete(m.rows, key)
	}
	return nil
}

func (m *memory[K, V]) Have(_ context.Context, visit func([]K, []V)) error {
	for key, value := range m.rows {
		visit([]K{key}, []V{value})
	}
	return nil
}

type fixture struct {
	t         *testing.T
	tables    *table.Tables
	loop      *apply.Loop
	addresses *memory[netip.Addr, bpf.Remote]
	ranges    *memory[netip.Prefix, bpf.Remote]
	epochs    *memory[uint32, uint32]
	log       []string
	changed   int // calls of rangesChanged
	now       time.Time
	version   uint64
	may       func(netip.Addr) bool
}

func setup(t *testing.T) *fixture {
	tables := table.New()
	f := &fixture{t: t, tables: tables, now: time.Unix(0, 0)}
	f.addresses = &memory[netip.Addr, bpf.Remote]{rows: map[netip.Addr]bpf.Remote{}, name: "address", log: &f.log}
	f.ranges = &memory[netip.Prefix, bpf.Remote]{rows: map[netip.Prefix]bpf.Remote{}, name: "range", log: &f.log}
	f.epochs = &memory[uint32, uint32]{rows: map[uint32]uint32{}, name: "epoch", log: &f.log}
	return f
}

func (f *fixture) start() {
	s := New(f.tables, Driver{
		Peers:  &memory[uint16, bpf.Peer]{rows: map[uint16]bpf.Peer{}, log: &f.log},
		Guards: &memory[netip.Prefix, uint32]{rows: map[netip.Prefix]uint32{}, log: &f.log},
		Ranges: f.ranges, Addresses: f.addresses, AddressEpochs: f.epochs,
	}, Removable{Addresses: func() (uint64, func(netip.Addr) bool) { return f.version, f.may }}, func() { f.changed++ })
	f.loop = apply.NewLoop(f.tables, s.Guards, s.Peers, s.Ranges, s.Addresses)
}

func (f *fixture) pass(complete bool) apply.Pass {
	f.t.Helper()
	f.log = nil
	p := f.loop.Pass(context.Background(), f.now, func(string) bool { return complete })
	f.now = f.now.Add(time.Minute)
	return p
}

func (f *fixture) want(identity uint32, addrs ...string) {
	to := f.tables.ForPlan().Addresses
	f.tables.Write(func(txn *table.Txn) {
		for _, a := range addrs {
			to.Put(txn, netip.MustParseAddr(a), bpf.Remote{Identity: identity})
		}
	})
}

func epochOf(addr string) uint32 { return bpf.AddressEpochIndex(netip.MustParseAddr(addr)) }

func TestAnAddressThatChangesRaisesItsEpochAfterItsRow(t *testing.T) {
	f := setup(t)
	f.epochs.rows[epochOf("10.0.0.1")] = 41 // from an earlier run
	f.start()
	f.want(1, "10.0.0.1", "10.0.0.2")
	f.pass(true)
	if len(f.log) != 2 || f.log[0] != "address" || f.log[1] != "epoch" {
		t.Errorf("operations: %v", f.log)
	}
	if got := f.epochs.rows[epochOf("10.0.0.1")]; got != 42 {
		t.Errorf("the epoch is %d, want 42", got)
	}
	f.pass(true)
	if len(f.log) != 0 {
		t.Errorf("an idle pass wrote %v", f.log)
	}
	other := f.epochs.rows[epochOf("10.0.0.2")]
	f.want(2, "10.0.0.1")
	f.pass(true)
	if f.epochs.rows[epochOf("10.0.0.1")] != 43 || f.epochs.rows[epochOf("10.0.0.2")] != other {
		t.Errorf("epochs = %v", f.epochs.rows)
	}

	// What can't be raised is raised later, though nothing changed meanwhile.
	f.epochs.refuse = true
	f.want(3, "10.0.0.1")
	if p := f.pass(true); p.Retry.IsZero() {
		t.Error("a refused epoch is not tried again")
	}
	f.epochs.refuse = false
	f.pass(true)
	if got := f.epochs.rows[epochOf("10.0.0.1")]; got != 44 {
		t.Errorf("the epoch is %d after it was refused once, want 44", got)
	}
}

func TestAnAddressThatIsRefusedIsNobodys(t *testing.T) {
	f := setup(t)
	f.start()
	f.want(1, "10.0.0.1")
	f.pass(true)
	f.addresses.refuse = true
	f.want(2, "10.0.0.1")
	f.pass(true)
	if len(f.addresses.rows) != 0 {
		t.Errorf("the old row outlives its successor: %v", f.addresses.rows)
	}
	if f.epochs.rows[epochOf("10.0.0.1")] != 2 {
		t.Errorf("flows of the old row are not judged again: %v", f.epochs.rows)
	}
}

func TestWhatMayGoGoesBeforeEverythingIsKnown(t *testing.T) {
	f := setup(t)
	gone, stays := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	f.addresses.rows[gone], f.addresses.rows[stays] = bpf.Remote{Identity: 1}, bpf.Remote{Identity: 2}
	f.start()
	f.pass(false)
	if len(f.addresses.rows) != 2 {
		t.Fatalf("rows went though nothing is known: %v", f.addresses.rows)
	}
	asked := 0
	f.version, f.may = 1, func(a netip.Addr) bool { asked++; return a == gone }
	f.pass(false)
	f.pass(false)
	if _, there := f.addresses.rows[stays]; len(f.addresses.rows) != 1 || !there {
		t.Errorf("rows = %v", f.addresses.rows)
	}
	if asked != 2 {
		t.Errorf("asked %d times about 2 rows", asked)
	}
	f.version, f.may = 2, func(netip.Addr) bool { return true }
	f.pass(false)
	if len(f.addresses.rows) != 0 {
		t.Errorf("rows = %v", f.addresses.rows)
	}
}

func TestRangesHaveFlowsJudgedInFull(t *testing.T) {
	f := setup(t)
	f.start()
	to, prefix := f.tables.ForPlan().Ranges, netip.MustParsePrefix("10.0.0.0/8")
	f.tables.Write(func(txn *table.Txn) { to.Put(txn, prefix, bpf.Remote{}) })
	f.pass(true)
	if f.changed != 1 {
		t.Errorf("told %d times of one range", f.changed)
	}
	f.pass(true)
	f.tables.Write(func(txn *table.Txn) { to.Delete(txn, prefix) })
	f.pass(true)
	if f.changed != 2 {
		t.Errorf("told %d times of a range that came and went", f.changed)
	}
}
