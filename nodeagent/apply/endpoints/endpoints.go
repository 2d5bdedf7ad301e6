// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package endpoints finds the interfaces of this node's pods and puts the datapath on them.
//
//	Pods + the kernel's routes, neighbours, bridges ── Finder ──► Ifaces, Locals, Hooks
//	the node's own addresses and uplinks            ── Finder ──► Addresses (host), Hooks
//	Ifaces, Locals, Hooks ── Steps ──► maps, then programs
//
// Who is behind an interface is in the maps before its programs are attached, and as long as they are.
package endpoints

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Driver of the interfaces' maps and programs.
type Driver struct {
	Ifaces apply.Target[uint32, bpf.Iface]
	Locals apply.Target[netip.Addr, bpf.Local]
	Hooks  apply.Target[table.Hook, table.Attachment]
}

// Steps in the order in which additions are written. may says which programs of an earlier run may go.
func Steps(t *table.Tables, d Driver, may apply.Removable[table.Hook]) []apply.Step {
	return []apply.Step{apply.Follow(t.Ifaces, d.Ifaces), apply.Follow(t.Locals, d.Locals), apply.Follow(t.Hooks, d.Hooks).PruneBy(may)}
}
