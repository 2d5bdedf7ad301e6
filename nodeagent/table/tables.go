// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Tables are all of the agent's tables.
type Tables struct {
	DB *statedb.DB // of the records

	// What the stream says.
	Clusters   *Records[*recordv1.Cluster]
	Nodes      *Records[*recordv1.Node]
	Identities *Records[*recordv1.Identity]
	Endpoints  *Records[*recordv1.Endpoint]
	Services   *Records[*recordv1.Service]
	Slices     *Records[*recordv1.BackendSlice]
	Policies   *Records[*recordv1.Policy]

	// What the kernel should hold.
	Settings  *Desired[string, Setting]
	Rules     *Desired[uint32, Rule]
	Sets      *Desired[uint32, uint64] // by bit: the hash of the selector
	Classes   *Desired[uint32, bpf.ClassSets]
	Members   *Desired[uint32, bpf.IdentityClass] // by identity
	Groups    *Desired[bpf.GroupKey, bpf.GroupChunk]
	Subjects  *Desired[bpf.SubjectKey, bpf.Subject] // in bank 0 of the key, whichever is in force
	Addresses *Desired[netip.Addr, bpf.Remote]
	Ranges    *Desired[netip.Prefix, bpf.Remote]
	Guards    *Desired[netip.Prefix, uint32] // ranges that must not leave the node in the clear; the value is 1
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

	lock      *sync.Mutex // of all desired tables
	addresses *overlay[netip.Addr, bpf.Remote]
}

// New makes empty tables.
func New() (*Tables, error) {
	t := &Tables{DB: statedb.New(), lock: &sync.Mutex{}}
	m := maker{db: t.DB}
	t.Clusters = records[*recordv1.Cluster](&m, "clusters", nil)
	t.Nodes = records[*recordv1.Node](&m, "nodes", nil)
	t.Identities = records[*recordv1.Identity](&m, "identities", nil)
	t.Endpoints = records(&m, "endpoints", endpointTerms)
	t.Services = records(&m, "services", serviceTerms)
	t.Slices = records(&m, "slices", sliceTerms)
	t.Policies = records[*recordv1.Policy](&m, "policies", nil)
	if m.err != nil {
		return nil, m.err
	}
	if err := t.DB.Start(); err != nil {
		return nil, fmt.Errorf("starting the tables: %w", err)
	}
	t.desired()
	return t, nil
}

func (t *Tables) desired() {
	t.Settings = newDesired[string, Setting](t.lock, "setting")
	t.Rules = newDesired[uint32, Rule](t.lock, "rule")
	t.Sets = newDesired[uint32, uint64](t.lock, "set")
	t.Classes = newDesired[uint32, bpf.ClassSets](t.lock, "class")
	t.Members = newDesired[uint32, bpf.IdentityClass](t.lock, "identity")
	t.Groups = newDesired[bpf.GroupKey, bpf.GroupChunk](t.lock, "group")
	t.Subjects = newDesired[bpf.SubjectKey, bpf.Subject](t.lock, "subject")
	t.Addresses = newDesired[netip.Addr, bpf.Remote](t.lock, "address")
	t.Ranges = newDesired[netip.Prefix, bpf.Remote](t.lock, "range")
	t.Guards = newDesired[netip.Prefix, uint32](t.lock, "guard")
	t.Pods = newDesired[string, Pod](t.lock, "pod")
	t.Frontends = newDesired[Frontend, bpf.Service](t.lock, "frontend")
	t.Slots = newDesired[bpf.SlotKey, bpf.Backend](t.lock, "slot")
	t.Peers = newDesired[uint16, Peer](t.lock, "peer")
	t.PeerFlags = newDesired[uint16, bpf.Peer](t.lock, "peer-flags")
	t.Routes = newDesired[netip.Prefix, Route](t.lock, "route")
	t.Tunnel = newDesired[string, Device](t.lock, "tunnel")
	t.Ifaces = newDesired[uint32, bpf.Iface](t.lock, "iface")
	t.Locals = newDesired[netip.Addr, bpf.Local](t.lock, "local")
	t.Hooks = newDesired[Hook, Attachment](t.lock, "hook")

	t.Addresses.six, t.Locals.six = netip.Addr.Is6, netip.Addr.Is6
	t.Ranges.six = func(p netip.Prefix) bool { return p.Addr().Is6() }
	t.Guards.six = t.Ranges.six
	t.Frontends.six = func(f Frontend) bool { return f.Addr.Is6() }
	t.addresses = newOverlay(t.Addresses)
}

// Close stops the tables' housekeeping.
func (t *Tables) Close() error { return t.DB.Stop() }

type maker struct {
	db  *statedb.DB
	err error
}

func records[B any](m *maker, name string, terms func(*Record[B]) []string) *Records[B] {
	if m.err != nil {
		return nil
	}
	var t *Records[B]
	t, m.err = newRecords(m.db, name, terms)
	return t
}
