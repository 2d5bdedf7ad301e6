// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/statedb"
	"github.com/cilium/statedb/index"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Tables are all of the agent's tables.
type Tables struct {
	DB *statedb.DB

	// What the stream says.
	*RecordTables

	// What the kernel should hold.
	Settings  *Desired[string, Setting]
	Rules     *Desired[uint32, Rule]
	Entries   *Desired[bpf.PolicyKey, bpf.PolicyEntry]
	Subjects  *Desired[bpf.SubjectKey, bpf.Subject]
	Addresses *Desired[netip.Addr, bpf.Remote]
	Ranges    *Desired[netip.Prefix, bpf.Remote]
	Pods      *Desired[string, Pod]
	Frontends *Desired[Frontend, bpf.Service]
	Slots     *Desired[bpf.SlotKey, bpf.Backend]
	Peers     *Desired[uint16, Peer]     // by index in fl_peers
	PeerFlags *Desired[uint16, bpf.Peer] // written when the tunnel knows the peer
	Routes    *Desired[netip.Prefix, Route]

	// What was found on the node and made for it.
	Tunnel *Desired[string, Device]
	Ifaces *Desired[uint32, bpf.Iface]
	Locals *Desired[netip.Addr, bpf.Local]
	Hooks  *Desired[Hook, Attachment]
}

// New makes empty tables.
func New() (*Tables, error) {
	t := &Tables{DB: statedb.New(), RecordTables: newRecordTables()}
	m := maker{db: t.DB}
	t.Settings = desired[string, Setting](&m, "setting", index.String)
	t.Rules = desired[uint32, Rule](&m, "rule", index.Uint32)
	t.Entries = desired[bpf.PolicyKey, bpf.PolicyEntry](&m, "policy-entry", structKey[bpf.PolicyKey])
	t.Subjects = desired[bpf.SubjectKey, bpf.Subject](&m, "subject", structKey[bpf.SubjectKey])
	t.Addresses = desired[netip.Addr, bpf.Remote](&m, "address", addrKey)
	t.Ranges = desired[netip.Prefix, bpf.Remote](&m, "range", prefixKey)
	t.Pods = desired[string, Pod](&m, "pod", index.String)
	t.Frontends = desired[Frontend, bpf.Service](&m, "frontend", frontendKey)
	t.Slots = desired[bpf.SlotKey, bpf.Backend](&m, "slot", structKey[bpf.SlotKey])
	t.Peers = desired[uint16, Peer](&m, "peer", index.Uint16)
	t.PeerFlags = desired[uint16, bpf.Peer](&m, "peer-flags", index.Uint16)
	t.Routes = desired[netip.Prefix, Route](&m, "route", prefixKey)

	t.Tunnel = desired[string, Device](&m, "tunnel", index.String)
	t.Ifaces = desired[uint32, bpf.Iface](&m, "iface", index.Uint32)
	t.Locals = desired[netip.Addr, bpf.Local](&m, "local", addrKey)
	t.Hooks = desired[Hook, Attachment](&m, "hook", hookKey)
	if m.err != nil {
		return nil, m.err
	}
	if err := t.DB.Start(); err != nil {
		return nil, fmt.Errorf("starting the tables: %w", err)
	}
	return t, nil
}

// Close stops the tables' housekeeping.
func (t *Tables) Close() error { return t.DB.Stop() }

// WritePlan begins a transaction over every table that plan writes.
func (t *Tables) WritePlan() statedb.WriteTxn {
	return t.DB.WriteTxn(t.Settings.rows, t.Rules.rows, t.Entries.rows, t.Subjects.rows, t.Addresses.rows,
		t.Ranges.rows, t.Pods.rows, t.Frontends.rows, t.Slots.rows, t.Peers.rows, t.Routes.rows)
}

// Write runs f in a transaction over the given tables.
func (t *Tables) Write(f func(statedb.WriteTxn) error, tables ...statedb.TableMeta) error {
	txn := t.DB.WriteTxn(tables...)
	defer txn.Abort()
	if err := f(txn); err != nil {
		return err
	}
	txn.Commit()
	return nil
}

type maker struct {
	db  *statedb.DB
	err error
}

func desired[K, V comparable](m *maker, name string, encode func(K) index.Key) *Desired[K, V] {
	if m.err != nil {
		return nil
	}
	var t *Desired[K, V]
	t, m.err = newDesired[K, V](m.db, name, encode)
	return t
}

// structKey encodes a generated struct. Its fields have fixed sizes, so it can't fail.
func structKey[K any](k K) index.Key {
	b, err := binary.Append(nil, binary.BigEndian, k)
	if err != nil {
		panic(fmt.Sprintf("encoding %T: %v", k, err))
	}
	return b
}

func addrKey(a netip.Addr) index.Key {
	b := a.As16()
	return b[:]
}

func prefixKey(p netip.Prefix) index.Key {
	b := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return append(b[:], byte(bits))
}

func hookKey(h Hook) index.Key {
	return append(index.String(string(h.Role)+"/"), index.Uint32(h.Ifindex)...)
}

func frontendKey(f Frontend) index.Key {
	b := f.Addr.As16()
	return append(b[:], byte(f.Port>>8), byte(f.Port), f.Proto)
}
