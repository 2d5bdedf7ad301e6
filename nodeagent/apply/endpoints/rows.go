// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Owners of rows about the node itself.
const (
	ownerHost    = "host"
	ownerUplinks = "uplinks"
	ownerLeft    = "left" // interfaces whose pods have no record any more
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
	iface := bpf.Iface{Identity: p.want.Identity}
	local := bpf.Local{Ifindex: ifindex}
	copy(iface.PodMAC[:], p.link.PodMAC)
	copy(iface.HostMAC[:], p.link.HostMAC)
	local.PodMAC, local.HostMAC = iface.PodMAC, iface.HostMAC

	out := rows{
		ifaces: map[uint32]bpf.Iface{},
		locals: map[netip.Addr]bpf.Local{},
		hooks:  hooksOf(p),
	}
	for _, addr := range p.want.Addresses {
		out.locals[addr] = local
		if addr.Is4() {
			iface.Flags |= bpf.IfaceIP4
			iface.IP4 = addr.As4()
		} else {
			iface.Flags |= bpf.IfaceIP6
			iface.IP6 = addr.As16()
		}
	}
	if p.link.Bridge != 0 {
		iface.Flags |= bpf.IfaceBridged
		if addr, ok := linkLocal(p.link.PodMAC); ok {
			out.locals[addr] = local
		}
	}
	out.ifaces[ifindex] = iface
	return out
}

// linkLocal is the address that a hardware address makes, as RFC 4291 has it in appendix A.
func linkLocal(mac net.HardwareAddr) (addr netip.Addr, ok bool) {
	if len(mac) != 6 {
		return addr, false
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}), true
}

// hooksOf are the programs on a pod's interface alone: without a row about who is behind it they drop everything.
func hooksOf(p *pod) map[table.Hook]table.Attachment {
	return map[table.Hook]table.Attachment{{Role: table.RolePod, Ifindex: uint32(p.link.Index)}: {Name: p.link.Name}}
}

// owned are the rows that the Finder writes, by pod and by what they say of the node.
type owned struct {
	hosts  *table.Owned[netip.Addr, bpf.Remote]
	ifaces *table.Owned[uint32, bpf.Iface]
	locals *table.Owned[netip.Addr, bpf.Local]
	hooks  *table.Owned[table.Hook, table.Attachment]
}

func newOwned(w table.NodeWriters) owned {
	return owned{table.NewOwned(w.Hosts), table.NewOwned(w.Ifaces), table.NewOwned(w.Locals), table.NewOwned(w.Hooks)}
}

func (o owned) set(txn *table.Txn, pod string, r rows) {
	owner := podOwner(pod)
	o.ifaces.Set(txn, owner, r.ifaces)
	o.locals.Set(txn, owner, r.locals)
	o.hooks.Set(txn, owner, r.hooks)
}

// node sets the rows about the node's own addresses and its uplinks.
func (f *Finder) node() error {
	addrs, err := f.cfg.Links.LocalAddresses()
	if err != nil {
		return err
	}
	var guarded []netip.Prefix
	f.cfg.Tables.Guards.Each(func(prefix netip.Prefix, _ uint32, _ table.State, _ error) bool {
		guarded = append(guarded, prefix)
		return true
	})
	uplinks, err := f.cfg.Links.Uplinks(guarded)
	if err != nil {
		return err
	}
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
	f.cfg.Tables.Write(func(txn *table.Txn) {
		f.rows.hosts.Set(txn, ownerHost, hosts)
		f.rows.hooks.Set(txn, ownerUplinks, hooks)
	})
	return nil
}

// encrypts says whether the uplinks are to be guarded.
func (f *Finder) encrypts() bool {
	for row := range f.cfg.Tables.Settings.All() {
		return row.Value.Encryption
	}
	return false
}
