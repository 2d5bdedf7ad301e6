// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"
)

// planOwnRanges decides whether an unknown address of our own cluster's ranges is a pod's; computation.ownRanges has the
// reasons.
func (p *Planner) planOwnRanges() {
	closed := p.cfg.OwnCNI || p.enc.On && p.enc.ScopeAll && p.enc.Strict || p.within > p.outside
	if closed == p.ownClosed {
		return
	}
	p.ownClosed = closed
	for _, prefix := range p.own.granted {
		p.dirtyMesh[prefix] = struct{}{}
	}
	for _, n := range p.own.nodes {
		p.markGateways(n)
	}
}

// planMesh decides what the mesh's ranges are.
func (p *Planner) planMesh(d *Delta) {
	for _, prefix := range take(&p.dirtyMesh) {
		p.dirtyRoutes[prefix] = struct{}{}
		entry, there := p.meshEntry(prefix)
		old, was := p.mesh[prefix]
		if there == was && entry == old {
			continue
		}
		if there {
			p.mesh[prefix] = entry
		} else {
			delete(p.mesh, prefix)
		}
		p.dirtyCIDRs[prefix] = struct{}{}
		if there != was {
			for prefix := range p.policy.Subnets(prefix) { // a range decides about those inside of it
				p.dirtyCIDRs[prefix] = struct{}{}
			}
		}
		if encrypted := entry.Flags.Has(Tunnel); encrypted != old.Flags.Has(Tunnel) {
			d.Encrypted = append(d.Encrypted, Change[netip.Prefix, struct{}]{Key: prefix, Gone: !encrypted})
		}
	}
}

func (p *Planner) meshEntry(prefix netip.Prefix) (IPCacheEntry, bool) {
	o := p.ranges.holder(prefix)
	switch {
	case o == nil:
		return IPCacheEntry{}, false
	case o.services:
		return IPCacheEntry{Flags: ServiceRange, ClusterID: o.cluster.id()}, true
	case o.cluster.own:
		if !p.ownClosed {
			return IPCacheEntry{}, false
		}
		return IPCacheEntry{ClusterID: o.cluster.id()}, true
	}
	// Nobody's address there: unknown, so dropped, until an endpoint's record claims it.
	return IPCacheEntry{Flags: Tunnel | RequireTunnel, ClusterID: o.cluster.id()}, true
}

// planPolicy takes over the CIDRs that policies name.
func (p *Planner) planPolicy() {
	if len(p.dirtyPolicy) == 0 {
		return
	}
	for prefix, id := range p.dirtyPolicy {
		before, named := p.policy.Get(prefix)
		switch {
		case named == (id != 0) && before == id:
			continue
		case id != 0:
			p.policy.Insert(prefix, id)
		default:
			p.policy.Delete(prefix)
		}
		p.dirtyCIDRs[prefix] = struct{}{}
		p.addresses.markNodesIn(prefix)
	}
	p.dirtyPolicy = map[netip.Prefix]uint32{}
}

func (p *Planner) planCIDRs(d *Delta) {
	for _, prefix := range take(&p.dirtyCIDRs) {
		entry, there := p.mesh[prefix]
		if id, named := p.policy.Get(prefix); !there && named && !within(p.mesh, prefix) {
			entry, there = IPCacheEntry{Identity: id}, true
		}
		d.CIDRs = change(d.CIDRs, p.cidrs, prefix, entry, there)
	}
}

// change notes in have and in the list what now belongs to a key, if it isn't what did.
func change[K, V comparable](list []Change[K, V], have map[K]V, key K, value V, there bool) []Change[K, V] {
	old, was := have[key]
	switch {
	case there && (!was || old != value):
		have[key] = value
		return append(list, Change[K, V]{Key: key, Value: value})
	case !there && was:
		delete(have, key)
		return append(list, Change[K, V]{Key: key, Gone: true})
	}
	return list
}

func (p *Planner) markRoutes(prefixes []netip.Prefix) {
	for _, prefix := range prefixes {
		p.dirtyRoutes[prefix] = struct{}{}
	}
}

func (p *Planner) planRoutes(d *Delta) {
	for _, prefix := range take(&p.dirtyRoutes) {
		route, there := p.route(prefix)
		d.Routes = change(d.Routes, p.routes, prefix, route, there)
	}
}

// route to another cluster's range, or to a block of another node's pods where the CNI is ours.
func (p *Planner) route(prefix netip.Prefix) (Route, bool) {
	through := Route{Dst: prefix, Via: ViaTunnel, Src: firstOf(p.self.addrs, prefix.Addr().Is4())}
	if o := p.ranges.holder(prefix); o != nil && !o.cluster.own {
		return through, p.enc.On
	}
	n := p.allowed.holder(prefix)
	if !p.cfg.OwnCNI || n == nil || !n.cluster.own || n.self || !slices.Contains(n.podCIDRs, prefix) {
		return Route{}, false
	}
	if n.tunnel {
		return through, true
	}
	gw := firstOf(n.addrs, prefix.Addr().Is4())
	return Route{Dst: prefix, Via: ViaGateway, Gateway: gw}, gw.IsValid()
}
