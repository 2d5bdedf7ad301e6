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
		old := p.mesh[prefix]
		d.CIDRs = change(d.CIDRs, p.mesh, prefix, entry, there)
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
		entry := IPCacheEntry{ClusterID: o.cluster.id()}
		if !p.ownClosed {
			entry.Flags = Unvouched
		}
		return entry, true
	}
	// Nobody's address there: unknown, so dropped, until an endpoint's record claims it.
	return IPCacheEntry{Flags: Tunnel | RequireTunnel, ClusterID: o.cluster.id()}, true
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
