// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// claimAddresses decides what each node may send from. Cryptokey routing makes AllowedIPs the proof of a packet's
// source, so no address may belong to two nodes; this node's own are claimed first.
func (p *computation) claimAddresses() {
	order := make([]*plannedNode, 0, len(p.nodes))
	if p.self != nil {
		order = append(order, p.self)
	}
	for _, n := range p.nodes {
		if n != p.self {
			order = append(order, n)
		}
	}
	taken := newClaims()
	for _, n := range order {
		n.allowed = p.wanted(n)
		taken.announce(n.allowed)
	}
	for _, n := range order {
		p.claimFor(&taken, n)
	}
}

// claimFor reduces what a node wants to what it gets.
func (p *computation) claimFor(taken *claims, n *plannedNode) {
	owner, got := n.key(), n.allowed[:0]
	for _, prefix := range n.allowed {
		other, ok := taken.claim(prefix, owner)
		switch {
		case ok:
			got = append(got, prefix)
		case other != owner:
			p.problems.add(problem{kind: problemNodeClaim, about: owner, other: other, prefix: prefix})
		}
	}
	n.allowed = got
}

// wanted lists what a node claims: its pods' CIDRs if its CNI keeps to them, the addresses of its pods outside of those,
// and its own addresses. Other clusters' nodes must keep to the pod ranges their cluster got.
func (p *computation) wanted(n *plannedNode) []netip.Prefix {
	var blocks []netip.Prefix
	if n.PodsInPodCIDRs || (n.own && p.in.OwnCNI) {
		for _, c := range n.PodCIDRs {
			if !n.own && !containsPrefix(p.ranges[n.Cluster], c) {
				p.problems.add(problem{kind: problemNodeRange, about: n.key(), other: n.Cluster, prefix: c})
				continue
			}
			blocks = append(blocks, c)
		}
	}
	out := slices.Clone(blocks)
	for _, addr := range n.pods {
		if !contains(blocks, addr) {
			out = append(out, single(addr))
		}
	}
	for _, addr := range n.Addresses {
		out = append(out, single(addr))
	}
	return sorted(out)
}

// peers makes a peer of every other node that has published a key.
func (p *computation) peers() {
	if !p.enc.On {
		p.problems.set(problem{kind: problemEncryptionOff}, p.hasOtherClusters())
		return
	}
	keys := map[record.PublicKey]string{} // → node
	var chosen []*plannedNode
	for _, n := range p.nodes {
		if n == p.self || n.PublicKey.IsZero() {
			continue
		}
		if kind, ok := unreachable(n.Node.Node); ok {
			p.problems.add(problem{kind: kind, about: n.key()})
			continue
		}
		if other, twice := keys[n.PublicKey]; twice {
			p.problems.add(problem{kind: problemSameKey, about: n.key(), other: other})
			continue
		}
		keys[n.PublicKey] = n.key()
		chosen = append(chosen, n)
	}
	p.assignIndexes(chosen)
	for _, n := range chosen {
		if n.index == 0 {
			continue
		}
		p.out.Peers = append(p.out.Peers, Peer{
			Cluster: n.Cluster, Node: n.Name, PublicKey: n.PublicKey,
			Endpoint:   netip.AddrPortFrom(n.Addresses[0], n.Port),
			AllowedIPs: n.allowed, Index: n.index,
		})
	}
}

func (p *computation) hasOtherClusters() bool {
	for name := range p.in.Clusters {
		if _, known := p.clusterID(name); known && name != p.in.Cluster {
			return true
		}
	}
	return false
}

// unreachable says why a node with a key can't be a peer, if it can't.
func unreachable(n *record.Node) (problemKind, bool) {
	switch {
	case len(n.Addresses) == 0:
		return problemNoAddress, true
	case n.Port == 0:
		return problemNoPort, true
	}
	return 0, false
}

// assignIndexes keeps the index of every peer that had one. A new peer gets one that nobody had in the plan before, if
// there is any: entries of the previous plan may still be in the kernel for a moment.
func (p *computation) assignIndexes(peers []*plannedNode) {
	taken := make([]bool, 1<<16)
	taken[0] = true
	for _, n := range peers {
		if i := p.in.PreviousIndexes[n.key()]; i != 0 && !taken[i] {
			n.index, taken[i] = i, true
		}
	}
	stale := slices.Clone(taken)
	for _, i := range p.in.PreviousIndexes {
		stale[i] = true
	}
	fresh, reuse := 1, 1
	for _, n := range peers {
		if n.index != 0 {
			continue
		}
		i := nextFree(stale, &fresh)
		if i == 0 {
			i = nextFree(taken, &reuse)
		}
		if i == 0 {
			p.problems.count(problemNoIndex, "", 1)
			continue
		}
		n.index, taken[i], stale[i] = i, true, true
	}
}

// nextFree returns the lowest free index from *from on, or 0.
func nextFree(taken []bool, from *int) uint16 {
	for *from < len(taken) {
		if !taken[*from] {
			return uint16(*from)
		}
		*from++
	}
	return 0
}
