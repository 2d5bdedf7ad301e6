// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// claimAddresses decides what each node may send from. Cryptokey routing makes AllowedIPs the proof of a packet's
// source, so no address may belong to two nodes. This node's own are claimed first, then our cluster's. Within a cluster
// blocks and nodes' own addresses come before the single addresses of pods: those are what a kubelet reports, and one
// that is wrong must not take another node's block.
func (p *computation) claimAddresses() {
	taken := newClaims()
	for _, n := range p.nodes {
		p.wanted(n)
		taken.announce(n.blocks)
		taken.announce(n.singles)
	}
	if p.self != nil {
		p.claimFor(&taken, p.self, p.self.blocks)
		p.claimFor(&taken, p.self, p.self.singles)
	}
	for nodes := p.nodes; len(nodes) > 0; {
		n := slices.IndexFunc(nodes, func(n *plannedNode) bool { return n.Cluster != nodes[0].Cluster })
		if n < 0 {
			n = len(nodes)
		}
		p.claimCluster(&taken, nodes[:n])
		nodes = nodes[n:]
	}
}

func (p *computation) claimCluster(taken *claims, nodes []*plannedNode) {
	for _, n := range nodes {
		if n != p.self {
			p.claimFor(taken, n, n.blocks)
		}
	}
	for _, n := range nodes {
		if n != p.self {
			p.claimFor(taken, n, n.singles)
		}
		n.allowed = sorted(n.allowed)
	}
}

// claimFor gives a node what it wants and nobody has.
func (p *computation) claimFor(taken *claims, n *plannedNode, prefixes []netip.Prefix) {
	owner := n.key()
	for _, prefix := range prefixes {
		other, ok := taken.claim(prefix, owner)
		switch {
		case ok:
			n.allowed = append(n.allowed, prefix)
		case other != owner:
			p.problems.add(problem{kind: problemNodeClaim, about: owner, other: other, prefix: prefix})
		}
	}
}

// wanted lists what a node claims: its pods' CIDRs if its CNI keeps to them, its own addresses, and the addresses of its
// pods outside of those CIDRs. Other clusters' nodes must keep to the pod ranges their cluster got.
func (p *computation) wanted(n *plannedNode) {
	if n.PodsInPodCIDRs || (n.own && p.in.OwnCNI) {
		for _, c := range n.PodCIDRs {
			if !n.own && !containsPrefix(p.ranges[n.Cluster], c) {
				p.problems.add(problem{kind: problemNodeRange, about: n.key(), other: n.Cluster, prefix: c})
				continue
			}
			n.blocks = append(n.blocks, c)
		}
	}
	for _, addr := range n.pods {
		if !contains(n.blocks, addr) {
			n.singles = append(n.singles, single(addr))
		}
	}
	for _, addr := range n.Addresses {
		n.blocks = append(n.blocks, single(addr))
	}
	n.blocks, n.singles = sorted(n.blocks), sorted(n.singles)
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
