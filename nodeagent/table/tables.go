// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"net/netip"
	"sync"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
)

// Tables are all of the agent's tables.
type Tables struct {
	// What the stream says.
	*RecordTables

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
	Blocks    *Desired[netip.Prefix, uint32] // CIDRs that policies name: their identities
	Guards    *Desired[netip.Prefix, uint32] // ranges that must not leave the node in the clear; the value is 1
	Pods      *Desired[string, Pod]
	Frontends *Desired[Frontend, bpf.Service]
	Slots     *Desired[bpf.SlotKey, bpf.Backend]
	Peers     *Desired[uint16, *topology.Peer] // by index in fl_peers
	PeerFlags *Desired[uint16, bpf.Peer]       // written when the tunnel knows the peer
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
func New() *Tables {
	lock := &sync.Mutex{}
	t := &Tables{
		RecordTables: newRecordTables(),
		lock:         lock,

		Settings:  newDesired[string, Setting](lock, "setting"),
		Rules:     newDesired[uint32, Rule](lock, "rule"),
		Sets:      newDesired[uint32, uint64](lock, "set"),
		Classes:   newDesired[uint32, bpf.ClassSets](lock, "class"),
		Members:   newDesired[uint32, bpf.IdentityClass](lock, "identity"),
		Groups:    newDesired[bpf.GroupKey, bpf.GroupChunk](lock, "group"),
		Subjects:  newDesired[bpf.SubjectKey, bpf.Subject](lock, "subject"),
		Addresses: newDesired[netip.Addr, bpf.Remote](lock, "address"),
		Ranges:    newDesired[netip.Prefix, bpf.Remote](lock, "range"),
		Blocks:    newDesired[netip.Prefix, uint32](lock, "block"),
		Guards:    newDesired[netip.Prefix, uint32](lock, "guard"),
		Pods:      newDesired[string, Pod](lock, "pod"),
		Frontends: newDesired[Frontend, bpf.Service](lock, "frontend"),
		Slots:     newDesired[bpf.SlotKey, bpf.Backend](lock, "slot"),
		Peers:     newDesired[uint16, *topology.Peer](lock, "peer"),
		PeerFlags: newDesired[uint16, bpf.Peer](lock, "peer-flags"),
		Routes:    newDesired[netip.Prefix, Route](lock, "route"),
		Tunnel:    newDesired[string, Device](lock, "tunnel"),
		Ifaces:    newDesired[uint32, bpf.Iface](lock, "iface"),
		Locals:    newDesired[netip.Addr, bpf.Local](lock, "local"),
		Hooks:     newDesired[Hook, Attachment](lock, "hook"),
	}
	t.Addresses.six, t.Locals.six = netip.Addr.Is6, netip.Addr.Is6
	t.Ranges.six = func(p netip.Prefix) bool { return p.Addr().Is6() }
	t.Guards.six, t.Blocks.six = t.Ranges.six, t.Ranges.six
	t.Frontends.six = func(f Frontend) bool { return f.Addr.Is6() }
	t.addresses = newOverlay(t.Addresses)
	return t
}
