// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Memory is what the kernel still holds from an earlier run. It keeps numbers as they were.
type Memory struct {
	// Policy is what the policy engine starts from.
	Policy policy.Remembered

	nodes     map[netip.Addr]uint16   // addresses of nodes: the index of their peer
	peers     map[uint16]struct{}     // indexes that rows bear
	tunnelled map[netip.Addr]struct{} // addresses of the cluster's own pods that were reached through the tunnel
	frontends map[service.FrontendKey]uint32
	proxied   map[service.FrontendKey]uint32
	slots     map[uint32][]netip.AddrPort
}

// NewMemory remembers nothing.
func NewMemory() *Memory {
	return &Memory{
		nodes: map[netip.Addr]uint16{}, peers: map[uint16]struct{}{}, tunnelled: map[netip.Addr]struct{}{}, frontends: map[service.FrontendKey]uint32{}, proxied: map[service.FrontendKey]uint32{}, slots: map[uint32][]netip.AddrPort{},
	}
}

// Address takes a row of the address maps. A node's own row has the index of its peer. Other clusters' pods are believed from
// the tunnel alone; what is reached through it and believed without is of the own cluster.
func (m *Memory) Address(addr netip.Addr, r bpf.Remote) {
	if r.Peer != 0 {
		m.peers[r.Peer] = struct{}{}
	}
	switch {
	case r.Peer != 0 && r.Flags&bpf.RemoteNode != 0:
		m.nodes[addr] = r.Peer
	case r.Flags&(bpf.RemoteTunnel|bpf.RemoteRequireTunnel) == bpf.RemoteTunnel:
		m.tunnelled[addr] = struct{}{}
	}
}

// Frontend takes a row of the frontend maps.
func (m *Memory) Frontend(key table.Frontend, s bpf.Service) {
	if s.Flags&bpf.ServicePolicyOnly != 0 {
		m.proxied[service.FrontendKey(key)] = s.ID
	} else {
		m.frontends[service.FrontendKey(key)] = s.ID
	}
}

// Slot takes a row of the slot map.
func (m *Memory) Slot(key bpf.SlotKey, b bpf.Backend) {
	const most = 1 << 16 // a slot beyond is not ours: nobody has so many backends
	if key.Slot >= most {
		return
	}
	list := m.slots[key.Service]
	for len(list) <= int(key.Slot) {
		list = append(list, netip.AddrPort{})
	}
	list[key.Slot] = netip.AddrPortFrom(table.BackendAddr(b), b.Port)
	m.slots[key.Service] = list
}
