// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Memory is what the kernel still holds from an earlier run. It keeps numbers as they were.
type Memory struct {
	nodes     map[netip.Addr]uint16 // addresses of nodes: the index of their peer
	frontends map[service.FrontendKey]uint32
	slots     map[uint32][]netip.AddrPort
	policy    policy.Remembered
	groups    map[uint32][]bpf.GroupChunk
}

// NewMemory remembers nothing.
func NewMemory() *Memory {
	return &Memory{
		nodes: map[netip.Addr]uint16{}, frontends: map[service.FrontendKey]uint32{}, slots: map[uint32][]netip.AddrPort{},
		groups: map[uint32][]bpf.GroupChunk{},
		policy: policy.Remembered{
			Sets: map[uint16]uint64{}, Classes: map[uint32]policy.Bitmap{}, Identities: map[uint32]uint32{},
			Groups: map[uint32][]policy.Line{}, Subjects: map[policy.SubjectKey]policy.Subject{}, CIDRs: map[netip.Prefix]uint32{},
		},
	}
}

// Address takes a row of the address maps. Only nodes' are kept: their own row has the index of their peer.
func (m *Memory) Address(addr netip.Addr, r bpf.Remote) {
	if r.Peer != 0 && r.Flags&bpf.RemoteNode != 0 {
		m.nodes[addr] = r.Peer
	}
}

// Range takes a row of the range maps. Only those that policies name are kept.
func (m *Memory) Range(prefix netip.Prefix, r bpf.Remote) {
	if identity.IsCIDR(r.Identity) {
		m.policy.CIDRs[prefix] = r.Identity
	}
}

// Frontend takes a row of the frontend maps.
func (m *Memory) Frontend(key table.Frontend, s bpf.Service) {
	m.frontends[service.FrontendKey(key)] = s.ID
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

// Set takes a row of the map that names peer sets.
func (m *Memory) Set(bit uint32, hash uint64) {
	if hash != 0 && bit < policy.SetCount {
		m.policy.Sets[uint16(bit)] = hash
	}
}

// Class takes a row of the class map.
func (m *Memory) Class(class uint32, c bpf.ClassSets) {
	if c != (bpf.ClassSets{}) {
		m.policy.Classes[class] = c.Sets
	}
}

// Identity takes a row of the identity map.
func (m *Memory) Identity(id uint32, c bpf.IdentityClass) { m.policy.Identities[id] = c.Class }

// Chunk takes a row of the group map.
func (m *Memory) Chunk(key bpf.GroupKey, c bpf.GroupChunk) {
	const most = 1 << 10 // 32,768 lines: a chunk beyond is damaged
	if key.Chunk >= most {
		return
	}
	list := m.groups[key.Group]
	for len(list) <= int(key.Chunk) {
		list = append(list, bpf.GroupChunk{})
	}
	list[key.Chunk] = c
	m.groups[key.Group] = list
}

// Subject takes a row of the subjects in force.
func (m *Memory) Subject(key bpf.SubjectKey, s bpf.Subject) {
	dir := policy.Ingress
	if key.Dir == bpf.DirEgress {
		dir = policy.Egress
	}
	m.policy.Subjects[policy.SubjectKey{Identity: key.Identity, Dir: dir}] = policy.Subject{
		Isolated: s.Flags&bpf.SubjectIsolated != 0, Audit: s.Flags&bpf.SubjectAudit != 0,
		Group: s.Group, Lines: s.Lines, DefaultRule: s.DefaultRule,
	}
}

// remembered is what the policy engine starts from.
func (m *Memory) remembered() policy.Remembered {
	for group, chunks := range m.groups {
		m.policy.Groups[group] = linesOf(chunks)
	}
	m.groups = nil
	return m.policy
}
