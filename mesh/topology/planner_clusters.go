// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"
)

// planClusters brings clusters' records into the plan. It returns those that were looked at.
func (p *Planner) planClusters() []*clusterState {
	for _, n := range p.dirtyNodes {
		p.claimOwnNode(n)
	}
	clusters := p.dirtyClusters
	p.dirtyClusters = nil
	for _, c := range clusters {
		p.claimRanges(c)
	}
	for _, c := range p.grantRanges() {
		if !c.dirty {
			clusters = append(clusters, c)
		}
	}
	for _, c := range clusters {
		c.dirty = false
		p.planCluster(c)
	}
	if len(clusters) > 0 {
		p.planEncryption()
	}
	return clusters
}

// claimRanges claims what a cluster's record says. Other clusters' services don't matter here.
func (p *Planner) claimRanges(c *clusterState) {
	var pods, services []netip.Prefix
	if c.next != nil {
		pods = distinct(c.next.PodCIDRs)
		if c.own {
			services = distinct(c.next.ServiceCIDRs)
		}
	}
	c.claimedPods = reclaim(p.ranges, &c.pods, c.claimedPods, pods)
	c.claimedServices = reclaim(p.ranges, &c.services, c.claimedServices, services)
}

// claimOwnNode claims what our own nodes' pods really use: even if our cluster's record forgot to say so, nobody else gets
// it.
func (p *Planner) claimOwnNode(n *nodeState) {
	if !n.cluster.own {
		return
	}
	var prefixes []netip.Prefix
	if n.next != nil {
		prefixes = distinct(n.next.PodCIDRs)
	}
	n.ranges = reclaim(p.ranges, &n.cluster.pods, n.ranges, prefixes)
}

// reclaim replaces an owner's claims.
func reclaim[O ranked[O]](l *ledger[O], owner O, old, want []netip.Prefix) []netip.Prefix {
	for _, prefix := range old {
		if !slices.Contains(want, prefix) {
			l.release(prefix, owner, false)
		}
	}
	for _, prefix := range want {
		if !slices.Contains(old, prefix) {
			l.claim(prefix, owner, false)
		}
	}
	return want
}

// grantRanges decides who gets what is claimed. It returns the clusters whose pod CIDRs changed by that.
func (p *Planner) grantRanges() []*clusterState {
	var changed []*clusterState
	p.ranges.drain(func(c *claim[*rangeOwner]) {
		o := c.owner
		line := problem{kind: problemPodRange, about: o.cluster.name, prefix: c.prefix}
		if o.services {
			line.kind = problemServiceRange
		}
		reportObstacle(p.problems, c, line)
		if c.accepted == c.old {
			return
		}
		p.dirtyMesh[c.prefix] = struct{}{}
		if o.services {
			return
		}
		if o.cluster.granted = insertOrRemove(o.cluster.granted, c.prefix, c.accepted); !o.cluster.regranted {
			o.cluster.regranted = true
			changed = append(changed, o.cluster)
		}
	})
	return changed
}

// reportObstacle reports who has what a claim wants, unless it is the same owner.
func reportObstacle[O interface {
	ranked[O]
	String() string
}](ps *problems, c *claim[O], line problem) {
	var none O
	if c.by == c.oldBy {
		return
	}
	if c.oldBy != none && c.oldBy != c.owner {
		line.other = c.oldBy.String()
		ps.remove(line)
	}
	if c.by != none && c.by != c.owner {
		line.other = c.by.String()
		ps.add(line)
	}
}

// insertOrRemove gives a copy of a sorted list with or without a prefix. It is there at most once.
func insertOrRemove(list []netip.Prefix, prefix netip.Prefix, there bool) []netip.Prefix {
	if there {
		return merge(list, []netip.Prefix{prefix}, nil)
	}
	return merge(list, nil, []netip.Prefix{prefix})
}

// planCluster takes over a cluster's record and ranges. If that means anything to its nodes and endpoints they are planned
// anew.
func (p *Planner) planCluster(c *clusterState) {
	listed, id := c.own || c.next != nil, uint8(0)
	if c.next != nil {
		id = c.next.ID
	}
	anew := listed != c.listed() || id != c.id()
	reranged := !c.own && !slices.Equal(c.granted, c.ranges)
	c.regranted = false
	if !anew && !reranged {
		c.rec, c.ranges = c.next, c.granted
		return
	}
	var affected []*endpointState
	for e := range c.endpoints {
		if anew || e.differs(c.ranges, c.granted) {
			affected = append(affected, e)
			p.withdraw(e)
		}
	}
	c.rec, c.ranges = c.next, c.granted
	for _, e := range affected {
		p.enter(e)
	}
	for _, n := range c.nodes {
		p.markNode(n)
	}
	if anew {
		p.markClusterEntries(c)
	}
}

// markClusterEntries has everything looked at that bears a cluster's id, but its endpoints.
func (p *Planner) markClusterEntries(c *clusterState) {
	for _, n := range c.nodes {
		p.markNodeAddresses(n)
	}
	for _, prefix := range slices.Concat(c.granted, c.claimedServices) {
		p.dirtyMesh[prefix] = struct{}{}
	}
}

// planEncryption takes over what our cluster's record says about encryption.
func (p *Planner) planEncryption() {
	others := 0
	for _, c := range p.clusters {
		if !c.own && c.rec != nil {
			others++
		}
	}
	before := p.enc
	p.enc = encryptionOf(p.own.rec)
	p.problems.set(problem{kind: problemEncryptionOff}, !p.enc.On && others > 0)
	if p.enc == before {
		return
	}
	for _, c := range p.clusters {
		if !c.own && p.enc.On == before.On {
			continue
		}
		for _, n := range c.nodes {
			p.markNode(n)
		}
		for _, prefix := range c.granted {
			p.dirtyRoutes[prefix] = struct{}{}
		}
	}
	for e := range p.own.endpoints {
		p.markEndpoint(e)
	}
}
