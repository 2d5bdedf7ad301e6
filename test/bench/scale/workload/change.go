// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Change is one thing that happens in a cluster: what it publishes for it, and what becomes of addresses.
type Change struct {
	Cluster string
	Delta   record.Delta
	Want    map[netip.Addr]uint32 // identity of an address; 0: nobody's any more
}

// Endpoint is a pod that goes or, in turn, one that comes on the same node under another name and address.
func (c *Cluster) Endpoint(r *rand.Rand) Change {
	if len(c.absent) == 0 {
		i := r.IntN(len(c.pods))
		p := c.pods[i]
		c.absent = append(c.absent, i)
		delete(c.used[p.node], p.host)
		return c.change(nil, c.endpointRecord(p), map[netip.Addr]uint32{c.address(p.node, p.host): 0})
	}
	i := c.absent[0]
	c.absent = nil
	c.pods[i] = c.newPod(c.pods[i].node, c.pods[i].identity)
	p := c.pods[i]
	return c.change(c.endpointRecord(p), nil, map[netip.Addr]uint32{c.address(p.node, p.host): p.identity})
}

// Identity is a label set that nobody had before, or, in turn, one that nobody has any more.
func (c *Cluster) Identity() Change {
	rec := c.identityRecord(c.Shape.Identities + 1)
	if c.newcomer = !c.newcomer; c.newcomer {
		return c.change(rec, nil, nil)
	}
	return c.change(nil, rec, nil)
}

// Node is a node without pods that leaves or, in turn, comes back with another key.
func (c *Cluster) Node() Change {
	n := c.Shape.Nodes // one more than have pods
	if c.keys > 0 && !c.gone {
		c.gone = true
		return c.change(nil, c.nodeRecord(n, c.keys), nil)
	}
	c.gone = false
	c.keys++
	return c.change(c.nodeRecord(n, c.keys), nil, nil)
}

// Probe moves one certain pod to an address that was free for long. It is how a run sees when a change arrives: to has an
// identity then, and from, the address before, has none.
func (c *Cluster) Probe() (ch Change, to, from netip.Addr) {
	was := c.probePod(c.probes)
	c.probes++
	p := c.probePod(c.probes)
	to, from = c.address(p.node, p.host), c.address(was.node, was.host)
	return c.change(c.endpointRecord(p), nil, map[netip.Addr]uint32{from: 0, to: p.identity}), to, from
}

func (c *Cluster) probePod(turn int) pod {
	return pod{name: "probe", node: turn % c.Shape.Nodes, host: lastHost + 1 + uint8(turn/c.Shape.Nodes%probeHosts), identity: c.identity(0)}
}

// NewIdentity is a label set that nobody had before and that policies' peers match, and the probe's pod that has it now.
func (c *Cluster) NewIdentity(serial int) (identity, pod Change, addr netip.Addr) {
	rec := c.identityRecord(serial)
	rec.GetIdentity().Id = c.identity(30000 + serial)
	rec.GetIdentity().Labels["serial"] = fmt.Sprint(serial)
	was := c.probePod(c.probes)
	c.probes++
	p := c.probePod(c.probes)
	p.identity = rec.GetIdentity().GetId()
	addr = c.address(p.node, p.host)
	pod = c.change(c.endpointRecord(p), nil, map[netip.Addr]uint32{c.address(was.node, was.host): 0, addr: p.identity})
	return c.change(rec, nil, nil), pod, addr
}

func (c *Cluster) change(put, gone *recordv1.Record, want map[netip.Addr]uint32) Change {
	ch := Change{Cluster: c.Name, Want: want}
	if put != nil {
		ch.Delta.Put = set(put)
	}
	if gone != nil {
		ch.Delta.Delete = []string{keyOf(gone)}
	}
	return ch
}
