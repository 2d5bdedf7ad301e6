// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"errors"
	"net/netip"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Owners of rows about the node itself.
const (
	ownerHost    = "host"
	ownerUplinks = "uplinks"
)

// podOwner owns the rows about a pod.
func podOwner(key string) string { return "pod/" + key }

type rows struct {
	ifaces map[uint32]bpf.Iface
	locals map[netip.Addr]bpf.Local
	hooks  map[table.Hook]table.Attachment
}

func rowsOf(p *pod) rows {
	ifindex := uint32(p.link.Index)
	iface := bpf.Iface{Identity: p.row.Value.Identity}
	local := bpf.Local{Ifindex: ifindex}
	copy(iface.PodMAC[:], p.link.PodMAC)
	copy(iface.HostMAC[:], p.link.HostMAC)
	local.PodMAC, local.HostMAC = iface.PodMAC, iface.HostMAC

	out := rows{
		ifaces: map[uint32]bpf.Iface{},
		locals: map[netip.Addr]bpf.Local{},
		hooks:  map[table.Hook]table.Attachment{{Role: table.RolePod, Ifindex: ifindex}: {Name: p.link.Name}},
	}
	for _, addr := range p.row.Value.Addrs() {
		out.locals[addr] = local
		if addr.Is4() {
			iface.Flags |= bpf.IfaceIP4
			iface.IP4 = addr.As4()
		} else {
			iface.Flags |= bpf.IfaceIP6
			iface.IP6 = addr.As16()
		}
	}
	out.ifaces[ifindex] = iface
	return out
}

func setRows(t *table.Tables, txn statedb.WriteTxn, key string, r rows) error {
	owner := podOwner(key)
	return errors.Join(
		t.Ifaces.Set(txn, owner, r.ifaces), t.Locals.Set(txn, owner, r.locals), t.Hooks.Set(txn, owner, r.hooks))
}

// node sets the rows about the node's own addresses and its uplinks.
func (f *Finder) node() error {
	addrs, err := f.cfg.Links.LocalAddresses()
	if err != nil {
		return err
	}
	uplinks, err := f.cfg.Links.Uplinks()
	if err != nil {
		return err
	}
	t := f.cfg.Tables
	hosts := make(map[netip.Addr]bpf.Remote, len(addrs))
	for _, a := range addrs {
		hosts[a] = bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}
	}
	hooks := map[table.Hook]table.Attachment{}
	for _, u := range uplinks {
		// Devices without a link-layer header carry other people's tunnels; the program reads Ethernet frames.
		if f.encrypts() && !u.L3 {
			hooks[table.Hook{Role: table.RoleUplink, Ifindex: uint32(u.Index)}] = table.Attachment{Name: u.Name}
		}
	}
	return t.Write(func(txn statedb.WriteTxn) error {
		return errors.Join(t.Addresses.Set(txn, ownerHost, hosts), t.Hooks.Set(txn, ownerUplinks, hooks))
	}, t.Addresses.Meta(), t.Hooks.Meta())
}

// encrypts says whether the uplinks are to be guarded.
func (f *Finder) encrypts() bool {
	for row := range f.cfg.Tables.Settings.All(f.cfg.Tables.DB.ReadTxn()) {
		return row.Value.Encryption
	}
	return false
}
