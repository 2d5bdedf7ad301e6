// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// nodeAddresses enters the nodes' own addresses. Not this node's: those are the host's, which the agent knows best.
func (p *computation) nodeAddresses() {
	for _, n := range p.nodes {
		if n == p.self {
			continue
		}
		for _, addr := range n.Addresses {
			p.enter(addr, n.entry(), n)
		}
	}
}

func (n *plannedNode) entry() IPCacheEntry {
	entry := IPCacheEntry{Identity: identity.RemoteNode, Flags: NodeAddress, ClusterID: n.id, Peer: n.index}
	if !n.own {
		entry.Flags |= Tunnel | RequireTunnel
	}
	return entry
}

// endpoints enters the pods' addresses.
func (p *computation) endpoints() {
	for i := range p.pods {
		e := &p.pods[i]
		id, _ := p.clusterID(e.Cluster)
		entry := IPCacheEntry{Identity: e.Identity, ClusterID: id}
		switch {
		case e.Cluster != p.in.Cluster:
			entry.Flags = Tunnel | RequireTunnel
		case e.Node != p.in.Self && p.tunnelTo(e.Node, e.node):
			entry.Flags = Tunnel
			if p.enc.Strict {
				entry.Flags |= RequireTunnel
			}
		}
		if e.node != nil && e.node != p.self {
			entry.Peer = e.node.index
		}
		for _, addr := range e.addrs {
			p.enter(addr, entry, e)
		}
	}
}

// tunnelTo says whether pods of a node of our own cluster are reached through the tunnel. A node that has never
// published a key runs no agent (yet): unless strict, its pods are reached as they were before Fairlead came. Once it has
// a key, packets go encrypted or not at all.
func (p *computation) tunnelTo(name string, node *plannedNode) bool {
	if !p.enc.On || !p.enc.ScopeAll {
		return false
	}
	return p.enc.Strict || p.in.Keyed[name] || node != nil && !node.PublicKey.IsZero()
}

// enter adds an address; the first to claim it keeps it, and nobody gets this node's own.
func (p *computation) enter(addr netip.Addr, entry IPCacheEntry, who fmt.Stringer) {
	if p.self != nil && slices.Contains(p.self.Addresses, addr) {
		p.problems.add(problem{kind: problemOwnAddress, about: who.String(), prefix: single(addr)})
		return
	}
	if have, twice := p.out.IPCache[addr]; twice {
		if have != entry {
			p.problems.add(problem{kind: problemTaken, about: who.String(), prefix: single(addr)})
		}
		return
	}
	p.out.IPCache[addr] = entry
}

// ownRanges enters the pod ranges of our own cluster with the identity unknown: an address in them that no endpoint's
// record has named is a pod that isn't known yet, and not the world's.
//
// Nodes use addresses of these ranges too, and what they send must pass: an API server that calls a webhook, a NodePort
// with its backend on another node. Where the CNI hands out addresses from the nodes' pod CIDRs, those are known (see
// gateways) and entered as the node's, unless a pod has them. Other CNIs give their devices any address of the range
// (Calico's overlays), which no record names; there the ranges are Unvouched, except under strict encryption, which
// promises that nothing within the cluster goes in the clear to or from an address that might be a pod's. Which kind it
// is, most of the cluster's pods show: one node that reports wrong addresses changes nothing.
//
// The ranges bear no other flags. The identity refuses before any of them counts, and what is marked Tunnel never leaves
// through an uplink (see Delta.Encrypted), while nodes and pods of one cluster do talk in the clear.
func (p *computation) ownRanges() {
	id, _ := p.clusterID(p.in.Cluster)
	entry := IPCacheEntry{ClusterID: id}
	if !p.ownRangesClosed() {
		entry.Flags = Unvouched
	}
	for _, prefix := range p.ranges[p.in.Cluster] {
		p.out.CIDRs[prefix] = entry
	}
	if entry.Flags.Has(Unvouched) {
		return
	}
	for _, n := range p.nodes {
		if !n.own || n == p.self || p.in.OwnCNI { // our own CNI's nodes send from their own addresses
			continue
		}
		for _, block := range n.PodCIDRs {
			for _, addr := range gateways(block) {
				p.enterGateway(addr, n.entry())
			}
		}
	}
}

func (p *computation) ownRangesClosed() bool {
	if p.in.OwnCNI || p.enc.On && p.enc.ScopeAll && p.enc.Strict {
		return true
	}
	within, outside := 0, 0
	for _, n := range p.nodes {
		if !n.own {
			continue
		}
		for _, addr := range n.pods {
			if contains(n.PodCIDRs, addr) {
				within++
			} else {
				outside++
			}
		}
	}
	return within > outside
}

// enterGateway adds an address that a node may have, if nobody is known to have it.
func (p *computation) enterGateway(addr netip.Addr, entry IPCacheEntry) {
	if p.self != nil && (slices.Contains(p.self.Addresses, addr) || contains(p.self.PodCIDRs, addr)) {
		return
	}
	if _, taken := p.out.IPCache[addr]; !taken {
		p.out.IPCache[addr] = entry
	}
}

// routes are for packets of the host itself, and of pods where the CNI is ours. Other pods' packets for the mesh leave by
// redirect at their interface and see no route.
func (p *computation) routes() {
	if p.enc.On {
		for name, ranges := range p.ranges {
			if name == p.in.Cluster {
				continue
			}
			for _, r := range ranges {
				p.out.Routes = append(p.out.Routes, Route{Dst: r, Via: ViaTunnel, Src: p.source(r)})
			}
		}
	}
	if p.in.OwnCNI {
		p.ownRoutes()
	}
	slices.SortFunc(p.out.Routes, func(a, b Route) int { return a.Dst.Compare(b.Dst) })
}

func (p *computation) ownRoutes() {
	for _, n := range p.nodes {
		if !n.own || n == p.self {
			continue
		}
		for _, c := range distinct(n.PodCIDRs) {
			if !slices.Contains(n.allowed, c) {
				continue // another node has it, which is among the problems
			}
			if p.tunnelTo(n.Name, n) {
				p.out.Routes = append(p.out.Routes, Route{Dst: c, Via: ViaTunnel, Src: p.source(c)})
				continue
			}
			if gw := firstOf(n.Addresses, c.Addr().Is4()); gw.IsValid() {
				p.out.Routes = append(p.out.Routes, Route{Dst: c, Via: ViaGateway, Gateway: gw})
			}
		}
	}
}

// source is this node's first address of a route's family: the tunnel device has none of its own, and the other side
// answers only to addresses it knows this node by.
func (p *computation) source(dst netip.Prefix) netip.Addr {
	if p.self == nil {
		return netip.Addr{}
	}
	return firstOf(p.self.Addresses, dst.Addr().Is4())
}
