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

func (p *Planner) writeServices(txn *table.Txn, d service.Delta) {
	for key, at := range d.Slots {
		slot := bpf.SlotKey{Service: key.ID, Slot: key.Slot}
		if at.IsValid() {
			p.out.Slots.Put(txn, slot, backend(at))
		} else {
			p.out.Slots.Delete(txn, slot)
		}
	}
	for key, row := range d.Frontends {
		front := table.Frontend(key)
		if row == nil {
			p.out.Frontends.Delete(txn, front)
			continue
		}
		s := bpf.Service{ID: row.ID, Backends: row.Backends}
		if row.AffinityTimeout > 0 {
			s.Flags, s.AffinitySeconds = bpf.ServiceAffinity, row.AffinityTimeout
		}
		if row.Proxied {
			s.Flags |= bpf.ServicePolicyOnly
		}
		p.out.Frontends.Put(txn, front, s)
	}
	for pod, row := range p.pods.rows {
		if row.Endpoint == nil {
			p.out.Pods.Delete(txn, pod)
		} else {
			p.out.Pods.Put(txn, pod, row)
		}
	}
	clear(p.pods.rows)
}

// backend's id is made from what it is, so that it is the same after a restart and on every node.
func backend(to netip.AddrPort) bpf.Backend {
	h := fnv.New32a()
	text, _ := to.MarshalBinary() // a valid address always has one
	_, _ = h.Write(text)
	return table.MakeBackend(max(h.Sum32(), 1), to)
}
