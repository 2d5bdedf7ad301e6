// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// addEndpoint plans a new endpoint, or one with another record. Other than clusters and nodes, endpoints are claimed for
// at once, with their node and cluster as they are planned now; a Step that changes those plans their endpoints anew.
func (p *Planner) addEndpoint(e *endpointState, n *nodeState) {
	e.link(n)
	p.enter(e)
}

func (p *Planner) removeEndpoint(e *endpointState) {
	p.withdraw(e)
	e.unlink()
}

// enter claims an endpoint's addresses for it and for its node.
func (p *Planner) enter(e *endpointState) {
	c := e.node.cluster
	if !c.listed() {
		p.problems.count(problemEndpointsLeftOut, c.name, 1)
		return
	}
	outside := e.usable(func(addr netip.Addr) {
		p.addresses.claim(addr, e)
		p.claimFor(e.node, addr)
	})
	p.problems.count(problemEndpointsOutside, c.name, outside)
}

// withdraw is the inverse of enter.
func (p *Planner) withdraw(e *endpointState) {
	c := e.node.cluster
	if !c.listed() {
		p.problems.count(problemEndpointsLeftOut, c.name, -1)
		return
	}
	outside := e.usable(func(addr netip.Addr) {
		p.addresses.release(addr, e)
		p.releaseFor(e.node, addr)
	})
	p.problems.count(problemEndpointsOutside, c.name, -outside)
}

func (p *Planner) markEndpoint(e *endpointState) { e.usable(p.addresses.mark) }

func (p *Planner) markPods(n *nodeState) {
	for e := n.pods; e != nil; e = e.next {
		p.markEndpoint(e)
	}
}

func (p *Planner) markNodeAddresses(n *nodeState) {
	for _, addr := range n.addrs {
		p.addresses.mark(addr)
	}
	p.markGateways(n)
}

// markGateways has what may be a node's looked at again.
func (p *Planner) markGateways(n *nodeState) {
	if !n.cluster.own || n.self || p.cfg.OwnCNI {
		return
	}
	for _, addr := range gatewaysOf(n.podCIDRs) {
		p.addresses.mark(addr)
	}
}

// planAddresses looks at the addresses that were marked.
func (p *Planner) planAddresses(d *Delta) {
	for _, addr := range p.addresses.dirty {
		p.planAddress(d, addr)
	}
	if p.addresses.dirty = p.addresses.dirty[:0]; cap(p.addresses.dirty) > 1024 {
		p.addresses.dirty = nil
	}
}

func (p *Planner) planAddress(d *Delta, addr netip.Addr) {
	s := p.addresses.get(addr)
	entry, there := p.decide(addr, s)
	old, was := s.entry, s.entry.Flags&markEmitted != 0
	old.Flags &^= marks

	keep := s.entry.Flags & markNode
	s.entry = entry
	s.entry.Flags |= keep
	if there {
		s.entry.Flags |= markEmitted
	}
	p.addresses.put(addr, s)
	switch {
	case there && (!was || entry != old):
		d.Addresses = append(d.Addresses, Change[netip.Addr, IPCacheEntry]{Key: addr, Value: entry})
	case !there && was:
		d.Addresses = append(d.Addresses, Change[netip.Addr, IPCacheEntry]{Key: addr, Gone: true})
	}
}

// decide says who has an address: the first node that claims it, else the first pod, else a node that may have it as a gateway.
// Nobody gets this node's own.
func (p *Planner) decide(addr netip.Addr, s addressState) (IPCacheEntry, bool) {
	others := p.addresses.others[addr]
	if s.entry.Flags&markNode == 0 && len(others) == 0 {
		p.dispute(addr, nil)
		if s.pod == nil {
			return IPCacheEntry{}, false
		}
		return p.endpointEntry(s.pod), true
	}
	c := contest{addr: addr}
	gateway := IPCacheEntry{}
	p.addresses.nodesAt(addr, func(a nodeAddress) bool {
		switch {
		case !a.gateway && a.node.self:
			c.ours = true
		case !a.gateway:
			c.enter(p.nodeEntry(a.node), func() string { return nodeTitle(a.node.String()) })
		case gateway == IPCacheEntry{}:
			gateway = p.nodeEntry(a.node)
		}
		return true
	})
	if s.pod != nil {
		for _, e := range append([]*endpointState{s.pod}, others...) {
			c.enter(p.endpointEntry(e), e.String)
		}
	}
	p.dispute(addr, c.problems)
	if !c.there && !c.ours && p.ownClosed && gateway != (IPCacheEntry{}) && !contains(p.self.podCIDRs, addr) {
		c.entry, c.there = gateway, true
	}
	return c.entry, c.there
}

// contest is a decision about an address, its claimants in order. This node comes before all others.
type contest struct {
	addr     netip.Addr
	ours     bool
	entry    IPCacheEntry
	there    bool
	problems []problem
}

func (c *contest) enter(entry IPCacheEntry, who func() string) {
	switch {
	case c.ours:
		c.problems = append(c.problems, problem{kind: problemOwnAddress, about: who(), prefix: single(c.addr)})
	case !c.there:
		c.entry, c.there = entry, true
	case c.entry != entry:
		c.problems = append(c.problems, problem{kind: problemTaken, about: who(), prefix: single(c.addr)})
	}
}

// dispute replaces the problems about an address.
func (p *Planner) dispute(addr netip.Addr, lines []problem) {
	old := p.disputes[addr]
	for _, line := range old {
		p.problems.remove(line)
	}
	for _, line := range lines {
		p.problems.add(line)
	}
	if len(lines) > 0 {
		p.disputes[addr] = slices.Clone(lines)
	} else if old != nil {
		delete(p.disputes, addr)
	}
}

func (p *Planner) nodeEntry(n *nodeState) IPCacheEntry {
	entry := IPCacheEntry{Identity: identity.RemoteNode, Flags: NodeAddress, ClusterID: n.cluster.id(), Peer: n.index}
	if !n.cluster.own {
		entry.Flags |= Tunnel | RequireTunnel
	}
	return entry
}

func (p *Planner) endpointEntry(e *endpointState) IPCacheEntry {
	n := e.node
	entry := IPCacheEntry{Identity: e.rec.Identity, ClusterID: n.cluster.id(), Peer: n.index}
	switch {
	case !n.cluster.own:
		entry.Flags = Tunnel | RequireTunnel
	case !n.self && n.tunnel:
		entry.Flags = Tunnel
		if p.enc.Strict {
			entry.Flags |= RequireTunnel
		}
	}
	return entry
}
