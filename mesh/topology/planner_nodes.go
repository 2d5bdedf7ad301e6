// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// planNodes brings nodes' records into the plan. It returns those that were looked at.
func (p *Planner) planNodes() []*nodeState {
	nodes := p.dirtyNodes
	p.dirtyNodes = nil
	for _, n := range nodes {
		n.dirty = false
		p.planNode(n)
	}
	return nodes
}

func (p *Planner) planNode(n *nodeState) {
	rec, old := n.next, n.rec
	if !n.cluster.listed() {
		rec = nil
	}
	if leftOut := n.next != rec; leftOut != n.leftOut {
		n.leftOut = leftOut
		p.problems.count(problemNodesLeftOut, n.cluster.name, map[bool]int{true: 1, false: -1}[leftOut])
	}
	if n.self {
		p.problems.set(problem{kind: problemNoSelf, about: n.name}, rec == nil)
	}
	for _, line := range n.problems {
		p.problems.remove(line)
	}
	n.problems = nil

	p.setAddresses(n, rec)
	p.setPodCIDRs(n, rec)
	p.setKey(n, p.usableKey(n))
	if n.index != 0 && old != nil && rec != nil && old.Port != rec.Port {
		p.dirtyPeers[n.index] = struct{}{}
	}
	n.keyed = n.keyed || n.next != nil && !n.next.PublicKey.IsZero()
	if tunnel := p.tunnelTo(n); tunnel != n.tunnel {
		n.tunnel = tunnel
		p.markPods(n)
		p.markRoutes(n.podCIDRs)
	}
	for _, line := range n.problems {
		p.problems.add(line)
	}
}

func (p *Planner) setAddresses(n *nodeState, rec *record.Node) {
	var addrs []netip.Addr
	if rec != nil {
		addrs = distinct(rec.Addresses)
	}
	if slices.Equal(addrs, n.addrs) {
		return
	}
	old := n.addrs
	n.addrs = addrs
	for _, addr := range old {
		if !slices.Contains(addrs, addr) {
			p.addresses.releaseNode(nodeAddress{addr: addr, node: n})
			p.allowed.release(single(addr), n, false)
		}
	}
	for _, addr := range addrs {
		if !slices.Contains(old, addr) {
			p.addresses.claimNode(nodeAddress{addr: addr, node: n})
			p.allowed.claim(single(addr), n, false)
		}
	}
	if n.index != 0 {
		p.dirtyPeers[n.index] = struct{}{}
	}
	switch {
	case n.self: // the source of every route
		for _, c := range p.clusters {
			p.markRoutes(c.granted)
		}
		for _, m := range p.own.nodes {
			p.markRoutes(m.podCIDRs)
		}
	case n.cluster.own: // perhaps a gateway
		p.markRoutes(n.podCIDRs)
	}
}

// setPodCIDRs also decides which of its pods' addresses a node claims one by one: those outside of the blocks it claims.
func (p *Planner) setPodCIDRs(n *nodeState, rec *record.Node) {
	var podCIDRs []netip.Prefix
	if rec != nil {
		podCIDRs = distinct(rec.PodCIDRs)
	}
	blocks := p.blocks(n, rec, podCIDRs)
	if (rec == nil) == (n.rec == nil) && slices.Equal(podCIDRs, n.podCIDRs) && slices.Equal(blocks, n.blocks) {
		n.rec = rec
		return
	}
	if n.rec != nil {
		p.eachPod(n, p.releaseFor)
	}
	old := n.podCIDRs
	n.rec, n.podCIDRs = rec, podCIDRs
	n.blocks = reclaim(p.allowed, n, n.blocks, blocks)
	if rec != nil {
		p.eachPod(n, p.claimFor)
	}
	if !n.cluster.own {
		return
	}
	p.markRoutes(old)
	p.markRoutes(podCIDRs)
	p.setGateways(n, gatewaysOf(old), gatewaysOf(podCIDRs))
}

// blocks lists the pod CIDRs that a node claims: all, if its CNI hands out addresses from them and the cluster has them.
func (p *Planner) blocks(n *nodeState, rec *record.Node, podCIDRs []netip.Prefix) []netip.Prefix {
	if rec == nil || !rec.PodsInPodCIDRs && !(n.cluster.own && p.cfg.OwnCNI) {
		return nil
	}
	if n.cluster.own {
		return podCIDRs
	}
	var out []netip.Prefix
	for _, c := range podCIDRs {
		if containsPrefix(n.cluster.ranges, c) {
			out = append(out, c)
		} else {
			n.problems = append(n.problems, problem{kind: problemNodeRange, about: n.String(), other: n.cluster.name, prefix: c})
		}
	}
	return out
}

func gatewaysOf(podCIDRs []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, block := range podCIDRs {
		out = append(out, gateways(block)...)
	}
	return distinct(out)
}

func (p *Planner) setGateways(n *nodeState, old, want []netip.Addr) {
	switch {
	case p.cfg.OwnCNI: // its nodes send from their own addresses
		return
	case n.self: // what is this node's isn't another's gateway
		for _, m := range p.own.nodes {
			p.markGateways(m)
		}
		return
	}
	for _, addr := range old {
		if !slices.Contains(want, addr) {
			p.addresses.releaseNode(nodeAddress{addr: addr, gateway: true, node: n})
		}
	}
	for _, addr := range want {
		if !slices.Contains(old, addr) {
			p.addresses.claimNode(nodeAddress{addr: addr, gateway: true, node: n})
		}
	}
}

// tunnelTo says whether pods of a node of our own cluster are reached through the tunnel. A node that has never
// published a key runs no agent (yet): unless strict, its pods are reached as they were before Fairlead came. Once it has
// a key, packets go encrypted or not at all, also while its key or its record is away: as long as anything is known of the
// node.
func (p *Planner) tunnelTo(n *nodeState) bool {
	return p.enc.On && p.enc.ScopeAll && (p.enc.Strict || n.keyed)
}

// claimFor claims an address of a pod for its node, if that is known.
func (p *Planner) claimFor(n *nodeState, addr netip.Addr) {
	p.countFor(n, addr, 1)
	if n.rec != nil && !contains(n.blocks, addr) {
		p.allowed.claim(single(addr), n, true)
	}
}

// releaseFor is the inverse of claimFor.
func (p *Planner) releaseFor(n *nodeState, addr netip.Addr) {
	p.countFor(n, addr, -1)
	if n.rec != nil && !contains(n.blocks, addr) {
		p.allowed.release(single(addr), n, true)
	}
}

// countFor counts where our own nodes' pods are.
func (p *Planner) countFor(n *nodeState, addr netip.Addr, by int) {
	switch {
	case n.rec == nil || !n.cluster.own:
	case contains(n.podCIDRs, addr):
		p.within += by
	default:
		p.outside += by
	}
}

func (p *Planner) eachPod(n *nodeState, fn func(*nodeState, netip.Addr)) {
	for e := n.pods; e != nil; e = e.next {
		e.usable(func(addr netip.Addr) { fn(n, addr) })
	}
}

// planAllowed decides who gets which AllowedIPs.
func (p *Planner) planAllowed() {
	type change struct{ added, removed []netip.Prefix }
	changes := map[*nodeState]*change{}
	p.allowed.drain(func(c *claim[*nodeState]) {
		n := c.owner
		if c.by != c.oldBy {
			reportObstacle(p.problems, c, problem{kind: problemNodeClaim, about: n.String(), prefix: c.prefix})
		}
		if c.accepted == c.old {
			return
		}
		ch := changes[n]
		if ch == nil {
			ch = &change{}
			changes[n] = ch
		}
		if c.accepted {
			ch.added = append(ch.added, c.prefix)
		} else {
			ch.removed = append(ch.removed, c.prefix)
		}
		if n.cluster.own {
			p.dirtyRoutes[c.prefix] = struct{}{}
		}
	})
	for n, ch := range changes {
		n.allowed = merge(n.allowed, sorted(ch.added), sorted(ch.removed))
		if n.index != 0 {
			p.dirtyPeers[n.index] = struct{}{}
		}
	}
}
