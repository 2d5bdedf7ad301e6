// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"hash/fnv"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// services is what one service's addresses lead to, as rows.
type services struct {
	frontends map[table.Frontend]bpf.Service
	slots     map[bpf.SlotKey]bpf.Backend
	problems  []string
}

// planService resolves one service. ids are kept or made by id; before tells which backend was in a slot.
func planService(local string, defs []service.Definition, id func(table.Frontend) uint32,
	before func(bpf.SlotKey) (bpf.Backend, bool),
) services {
	r := service.Resolve(local, defs)
	out := services{
		frontends: make(map[table.Frontend]bpf.Service, len(r.Frontends)),
		slots:     map[bpf.SlotKey]bpf.Backend{},
		problems:  r.Problems,
	}
	for _, f := range r.Frontends {
		key := table.Frontend{Addr: f.Addr, Port: f.Port, Proto: f.Proto}
		row := bpf.Service{ID: id(key), Backends: uint32(len(f.Backends))}
		if f.AffinityTimeout > 0 {
			row.Flags, row.AffinitySeconds = bpf.ServiceAffinity, f.AffinityTimeout
		}
		out.frontends[key] = row
		fillSlots(out.slots, row.ID, f.Backends, before)
	}
	return out
}

// fillSlots gives each backend a slot from 0 on. Who had one that still exists keeps it, so that a backend that comes or
// goes moves at most one other.
func fillSlots(into map[bpf.SlotKey]bpf.Backend, id uint32, backends []service.Backend,
	before func(bpf.SlotKey) (bpf.Backend, bool),
) {
	waiting := make(map[bpf.Backend]bool, len(backends))
	order := make([]bpf.Backend, len(backends))
	for i, b := range backends {
		order[i] = backend(b)
		waiting[order[i]] = true
	}
	n := uint32(len(order))
	for slot := range n {
		key := bpf.SlotKey{Service: id, Slot: slot}
		if b, ok := before(key); ok && waiting[b] {
			into[key] = b
			delete(waiting, b)
		}
	}
	slot := uint32(0)
	for _, b := range order {
		if !waiting[b] {
			continue
		}
		for ; ; slot++ {
			if _, taken := into[bpf.SlotKey{Service: id, Slot: slot}]; !taken {
				break
			}
		}
		into[bpf.SlotKey{Service: id, Slot: slot}] = b
		delete(waiting, b)
	}
}

// backend's id is made from what it is, so that it is the same after a restart and on every node.
func backend(b service.Backend) bpf.Backend {
	to := netip.AddrPortFrom(b.Addr.Unmap(), b.Port)
	h := fnv.New32a()
	text, _ := to.MarshalBinary() // a valid address always has one
	_, _ = h.Write(text)
	return table.MakeBackend(max(h.Sum32(), 1), to)
}

// serviceIDs hands out numbers for frontends; a frontend keeps its number as long as it exists.
type serviceIDs struct {
	byFrontend map[table.Frontend]uint32
	last       uint32
}

func newServiceIDs(before map[table.Frontend]bpf.Service) *serviceIDs {
	s := &serviceIDs{byFrontend: make(map[table.Frontend]uint32, len(before))}
	for f, row := range before {
		s.byFrontend[f] = row.ID
		s.last = max(s.last, row.ID)
	}
	return s
}

func (s *serviceIDs) of(f table.Frontend) uint32 {
	if id, ok := s.byFrontend[f]; ok {
		return id
	}
	s.last++
	s.byFrontend[f] = s.last
	return s.last
}

func (s *serviceIDs) forget(f table.Frontend) { delete(s.byFrontend, f) }
