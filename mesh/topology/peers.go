// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"encoding/base64"
	"net/netip"
	"slices"
)

// claimAddresses decides what each node may send from. Cryptokey routing makes AllowedIPs the proof of a packet's
// source, so no address may belong to two nodes; this node's own are claimed first.
func (p *planner) claimAddresses() {
	order := make([]*nodeState, 0, len(p.nodes))
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
func (p *planner) claimFor(taken *claims, n *nodeState) {
	owner, got := n.key(), n.allowed[:0]
	for _, prefix := range n.allowed {
		other, ok := taken.claim(prefix, owner)
		switch {
		case ok:
			got = append(got, prefix)
		case other != owner:
			p.problems.add("nodes %s and %s both claim %s; %s keeps it", other, owner, prefix, other)
		}
	}
	n.allowed = got
}

// wanted lists what a node claims: its pods' CIDRs if its CNI keeps to them, the addresses of its pods outside of those,
// and its own addresses. Other clusters' nodes must keep to the pod ranges their cluster got.
func (p *planner) wanted(n *nodeState) []netip.Prefix {
	var out []netip.Prefix
	if n.rec.PodsInPodCidrs || (n.own && p.in.OwnCNI) {
		for _, c := range n.podCIDRs {
			if !n.own && !containsPrefix(p.ranges[n.cluster], c) {
				p.problems.add("node %s: pod CIDR %s is not within the pod CIDRs of cluster %s; it is not used", n.key(), c, n.cluster)
				continue
			}
			out = append(out, c)
		}
	}
	blocks := slices.Clone(out)
	for _, addr := range n.pods {
		if !contains(blocks, addr) {
			out = append(out, single(addr))
		}
	}
	for _, addr := range n.addrs {
		out = append(out, single(addr))
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

func containsPrefix(ranges []netip.Prefix, c netip.Prefix) bool {
	for _, r := range ranges {
		if r.Bits() <= c.Bits() && r.Contains(c.Addr()) {
			return true
		}
	}
	return false
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// peers makes a peer of every other node that has published a key.
func (p *planner) peers() {
	if !p.in.EncryptionOn {
		if p.hasOtherClusters() {
			p.problems.add("encryption is off: other clusters can't be reached, because this version carries packets between clusters only through WireGuard")
		}
		return
	}
	keys := map[string]string{} // public key → node
	var chosen []*nodeState
	for _, n := range p.nodes {
		if n == p.self || n.rec.WireguardPublicKey == "" {
			continue
		}
		if problem := checkPeer(n); problem != "" {
			p.problems.add("node %s is not reachable: %s", n.key(), problem)
			continue
		}
		if other, twice := keys[n.rec.WireguardPublicKey]; twice {
			p.problems.add("node %s is not reachable: node %s has the same WireGuard public key", n.key(), other)
			continue
		}
		keys[n.rec.WireguardPublicKey] = n.key()
		chosen = append(chosen, n)
	}
	p.assignIndexes(chosen)
	for _, n := range chosen {
		if n.index == 0 {
			continue
		}
		p.out.Peers = append(p.out.Peers, Peer{
			Cluster: n.cluster, Node: n.rec.Name, PublicKey: n.rec.WireguardPublicKey,
			Endpoint:   netip.AddrPortFrom(n.addrs[0], uint16(n.rec.WireguardPort)),
			AllowedIPs: n.allowed, Index: n.index,
		})
	}
}

func (p *planner) hasOtherClusters() bool {
	for name := range p.in.Clusters {
		if name != p.in.Cluster {
			return true
		}
	}
	return false
}

func checkPeer(n *nodeState) string {
	key, err := base64.StdEncoding.DecodeString(n.rec.WireguardPublicKey)
	switch {
	case err != nil || len(key) != 32:
		return "its WireGuard public key is not 32 bytes in base64"
	case len(n.addrs) == 0:
		return "it has no address"
	case n.rec.WireguardPort == 0 || n.rec.WireguardPort > 65535:
		return "its WireGuard port is not set"
	}
	return ""
}

// assignIndexes keeps the index of every peer that had one. A new peer gets one that nobody had in the plan before, if
// there is any: entries of the previous plan may still be in the kernel for a moment.
func (p *planner) assignIndexes(peers []*nodeState) {
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
			p.problems.group("nodes without a peer: more than 65535 nodes have a key")
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
