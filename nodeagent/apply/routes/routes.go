// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package routes writes how addresses are reached: whose they are and behind which peer (for the datapath), and the
// host's own routes into the tunnel.
package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Driver of the address maps.
type Driver struct {
	Peers     apply.Target[uint16, bpf.Peer]
	Ranges    apply.Target[netip.Prefix, bpf.Remote]
	Guards    apply.Target[netip.Prefix, uint32]
	Addresses apply.Target[netip.Addr, bpf.Remote]
	// AddressEpochs is fl_address_epochs.
	AddressEpochs apply.Target[uint32, uint32]
}

// Removable says which rows may go before everything is known; see [apply.Removable].
type Removable struct {
	Ranges    apply.Removable[netip.Prefix]
	Addresses apply.Removable[netip.Addr]
}

// Steps are those of the addresses, by name, so that policy can be put between them.
type Steps struct {
	Peers     apply.Step
	Guards    apply.Step
	Ranges    *apply.Follower[netip.Prefix, bpf.Remote]
	Addresses Addresses
}

// Addresses is the step of the exact addresses.
type Addresses interface {
	apply.Step
	// Refusals counts the rows that the kernel refused.
	Refusals() int
	// RefusedRows are those.
	RefusedRows() map[netip.Addr]bpf.Remote
}

// New makes the steps. Additions are written in the order Guards, Peers, Ranges, Addresses: a range that must not leave
// the node in the clear is guarded before anything is sent there, and a peer is there before the addresses behind it.
// rangesChanged is called when the meaning of a range changed in the kernel.
func New(t *table.Tables, d Driver, may Removable, rangesChanged func()) Steps {
	ranges := apply.Follow[netip.Prefix, bpf.Remote](t.Ranges, noted{d.Ranges, rangesChanged}).PruneBy(may.Ranges)
	return Steps{
		Peers: apply.Follow(t.PeerFlags, d.Peers), Guards: apply.Follow(t.Guards, d.Guards), Ranges: ranges,
		Addresses: newAddresses(t, d, may.Addresses),
	}
}

// noted calls changed after rows were written or removed.
type noted struct {
	apply.Target[netip.Prefix, bpf.Remote]
	changed func()
}

func (n noted) Update(ctx context.Context, keys []netip.Prefix, values []bpf.Remote) []error {
	defer n.changed() // even a write that failed may have been half done
	return n.Target.Update(ctx, keys, values)
}

func (n noted) Delete(ctx context.Context, keys []netip.Prefix) []error {
	defer n.changed()
	return n.Target.Delete(ctx, keys)
}

// HostTable is the kernel's routing table of ours.
type HostTable interface {
	Ensure() error
	Replace(routes.Route) error
	Remove(netip.Prefix) error
	List() ([]routes.Route, error)
}

// HostStep writes the host's routes. may says which of an earlier run may go.
func HostStep(t *table.Tables, driver HostTable, may apply.Removable[netip.Prefix]) apply.Step {
	return apply.Follow(t.Routes, apply.OneByOne[netip.Prefix, table.Route](host{tables: t, driver: driver})).PruneBy(may)
}

// ErrNoTunnel says that the device that routes lead into is not there yet.
var ErrNoTunnel = errors.New("the tunnel device isn't there yet")

type host struct {
	tables *table.Tables
	driver HostTable
}

func (h host) tunnel() (uint32, bool) {
	for row := range h.tables.Tunnel.All() {
		return row.Value.Ifindex, true
	}
	return 0, false
}

func (h host) Update(_ context.Context, prefix netip.Prefix, r table.Route) error {
	out := routes.Route{Prefix: prefix, Via: r.Gateway, Src: r.Source}
	if r.Via == string(topology.ViaTunnel) {
		ifindex, ok := h.tunnel()
		if !ok {
			return fmt.Errorf("route to %s: %w", prefix, ErrNoTunnel)
		}
		out.Link = int(ifindex)
	}
	return h.driver.Replace(out)
}

func (h host) Delete(_ context.Context, prefix netip.Prefix) error { return h.driver.Remove(prefix) }

func (h host) Have(context.Context) (map[netip.Prefix]table.Route, error) {
	// Others remove rules as well: systemd-networkd does, of all that aren't its own, when it starts.
	if err := h.driver.Ensure(); err != nil {
		return nil, err
	}
	list, err := h.driver.List()
	if err != nil {
		return nil, err
	}
	tunnel, ok := h.tunnel()
	out := make(map[netip.Prefix]table.Route, len(list))
	for _, r := range list {
		row := table.Route{Via: string(topology.ViaGateway), Gateway: r.Via, Source: r.Src}
		if ok && r.Link == int(tunnel) {
			row.Via = string(topology.ViaTunnel)
		}
		out[r.Prefix] = row
	}
	return out, nil
}
