// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// nodeAddresses enters the nodes' own addresses. Not this node's: those are the host's, which the agent knows best.
func (p *planner) nodeAddresses() {
	for _, n := range p.nodes {
		if n == p.self {
			continue
		}
		for _, addr := range n.addrs {
			entry := IPCacheEntry{Identity: identity.RemoteNode, Node: true, ClusterID: n.id, Peer: n.index}
			if !n.own {
				entry.Tunnel, entry.RequireTunnel = true, true
			}
			p.enter(addr, entry, "node", n.key())
		}
	}
}

// endpoints enters the pods' addresses.
func (p *planner) endpoints() {
	for i := range p.pods {
		e := &p.pods[i]
		own, rec := e.Cluster == p.in.Cluster, e.Endpoint.Endpoint
		id, known := p.clusterID(e.Cluster)
		if !known && !own {
			p.problems.group("endpoints of cluster %s are left out: its cluster record is missing or has no valid id", e.Cluster)
			continue
		}
		entry := IPCacheEntry{Identity: rec.Identity, ClusterID: id}
		switch {
		case !own:
			entry.Tunnel, entry.RequireTunnel = true, true
		case rec.Node != p.in.Self:
			entry.Tunnel = p.tunnelTo(e.node)
			entry.RequireTunnel = entry.Tunnel && p.in.Strict
		}
		if e.node != nil && e.node != p.self {
			entry.Peer = e.node.index
		}
		for _, addr := range e.addrs {
			p.enter(addr, entry, "pod", e.Cluster+"/"+rec.Namespace+"/"+rec.Name)
		}
	}
}

// tunnelTo says whether pods of a node of our own cluster are reached through the tunnel. A node that has never
// published a key runs no agent (yet): unless strict, its pods are reached as they were before Fairlead came. Once it has
// a key, packets go encrypted or not at all.
func (p *planner) tunnelTo(node *nodeState) bool {
	if !p.in.EncryptionOn || !p.in.ScopeAll {
		return false
	}
	return p.in.Strict || (node != nil && node.rec.WireguardPublicKey != "")
}

// enter adds an address; the first to claim it keeps it, and nobody gets this node's own.
func (p *planner) enter(addr netip.Addr, entry IPCacheEntry, what, who string) {
	if p.self != nil && slices.Contains(p.self.addrs, addr) {
		p.problems.add("%s %s claims %s, an address of this node; it is ignored", what, who, addr)
		return
	}
	if have, twice := p.out.IPCache[addr]; twice {
		if have != entry {
			p.problems.add("%s %s claims %s, which somebody else has; it is ignored", what, who, addr)
		}
		return
	}
	p.out.IPCache[addr] = entry
}

// routes are for packets of the host itself, and of pods where the CNI is ours. Other pods' packets for the mesh leave by
// redirect at their interface and see no route.
func (p *planner) routes() {
	if p.in.EncryptionOn {
		for name, ranges := range p.ranges {
			if _, known := p.clusterID(name); name == p.in.Cluster || !known {
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
	slices.SortFunc(p.out.Routes, func(a, b Route) int { return comparePrefixes(a.Dst, b.Dst) })
}

func (p *planner) ownRoutes() {
	for _, n := range p.nodes {
		if !n.own || n == p.self {
			continue
		}
		for _, c := range n.podCIDRs {
			if !slices.Contains(n.allowed, c) {
				continue // another node has it, and that was told
			}
			if p.tunnelTo(n) {
				p.out.Routes = append(p.out.Routes, Route{Dst: c, Via: ViaTunnel, Src: p.source(c)})
				continue
			}
			if gw := firstOf(n.addrs, c.Addr().Is4()); gw.IsValid() {
				p.out.Routes = append(p.out.Routes, Route{Dst: c, Via: ViaGateway, Gateway: gw})
			}
		}
	}
}

// source is this node's first address of a route's family: the tunnel device has none of its own, and the other side
// answers only to addresses it knows this node by.
func (p *planner) source(dst netip.Prefix) netip.Addr {
	if p.self == nil {
		return netip.Addr{}
	}
	return firstOf(p.self.addrs, dst.Addr().Is4())
}

func firstOf(addrs []netip.Addr, v4 bool) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}
