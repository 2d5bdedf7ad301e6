// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"net/netip"
	"slices"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// planner holds what the steps of Compute hand to each other.
type planner struct {
	in       Input
	out      Plan
	problems problems

	nodes  []*nodeState // own cluster first, then by cluster and name: whoever is earlier keeps what two claim
	byKey  map[string]*nodeState
	self   *nodeState
	ranges map[string][]netip.Prefix // cluster → the pod CIDRs it got
	pods   []pod                     // in the same order as nodes
}

// nodeState is a node with everything about it parsed once.
type nodeState struct {
	cluster  string
	id       uint8
	own      bool // of this node's cluster
	rec      *recordv1.Node
	addrs    []netip.Addr
	podCIDRs []netip.Prefix
	pods     []netip.Addr
	allowed  []netip.Prefix
	index    uint16
}

// pod is an endpoint with the addresses that its cluster may have.
type pod struct {
	Endpoint
	addrs []netip.Addr
	node  *nodeState // nil: its node has no record
}

func (n *nodeState) key() string { return PeerKey(n.cluster, n.rec.Name) }

func newPlanner(in Input) *planner {
	p := &planner{
		in:     in,
		byKey:  make(map[string]*nodeState, len(in.Nodes)),
		ranges: map[string][]netip.Prefix{},
	}
	p.out.IPCache = make(map[netip.Addr]IPCacheEntry, len(in.Endpoints)+len(in.Nodes))
	p.out.CIDRs = map[netip.Prefix]IPCacheEntry{}

	sorted := slices.Clone(in.Nodes)
	sorted = slices.DeleteFunc(sorted, func(n Node) bool { return n.Node == nil })
	slices.SortStableFunc(sorted, func(a, b Node) int {
		return cmp.Or(p.compareClusters(a.Cluster, b.Cluster), cmp.Compare(a.Node.Name, b.Node.Name))
	})
	for _, n := range sorted {
		p.addNode(n)
	}
	p.self = p.byKey[PeerKey(in.Cluster, in.Self)]
	if p.self == nil {
		p.problems.add("this node (%s) has no record: its own addresses are unknown", in.Self)
	}
	return p
}

func (p *planner) addNode(n Node) {
	state := &nodeState{cluster: n.Cluster, own: n.Cluster == p.in.Cluster, rec: n.Node}
	if _, twice := p.byKey[state.key()]; twice {
		p.problems.add("node %s has two records; the first is used", state.key())
		return
	}
	id, known := p.clusterID(n.Cluster)
	if !known && !state.own {
		p.problems.group("nodes of cluster %s are left out: its cluster record is missing or has no valid id", n.Cluster)
		return
	}
	state.id = id
	for _, text := range n.Node.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			p.problems.add("node %s: address %q is not an IP address", state.key(), text)
			continue
		}
		state.addrs = append(state.addrs, addr.Unmap().WithZone(""))
	}
	for _, text := range n.Node.PodCidrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			p.problems.add("node %s: pod CIDR %q is not a CIDR", state.key(), text)
			continue
		}
		if prefix = prefix.Masked(); !slices.Contains(state.podCIDRs, prefix) {
			state.podCIDRs = append(state.podCIDRs, prefix)
		}
	}
	p.nodes = append(p.nodes, state)
	p.byKey[state.key()] = state
}

// compareClusters orders clusters: ours before all others, so that nobody takes from us what both claim.
func (p *planner) compareClusters(a, b string) int {
	if a == b {
		return 0
	}
	if a == p.in.Cluster {
		return -1
	}
	if b == p.in.Cluster {
		return 1
	}
	return cmp.Compare(a, b)
}

func (p *planner) clusterID(name string) (uint8, bool) {
	c := p.in.Clusters[name]
	if c == nil || c.Id == 0 || c.Id > 255 {
		return 0, false
	}
	return uint8(c.Id), true
}

// clusterRanges gives each cluster its pod CIDRs. A range that two clusters claim stays with the first; the other
// cluster's pods in it are out of reach, and it says so.
func (p *planner) clusterRanges() {
	names := make([]string, 0, len(p.in.Clusters))
	for name, c := range p.in.Clusters {
		if c != nil {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, p.compareClusters)

	claims := p.rangeClaims(names)
	taken := newClaims()
	for _, c := range claims {
		taken.announce(c.prefixes)
	}
	for _, c := range claims {
		p.grant(c, &taken)
	}
}

// rangeClaim is what a cluster says its pods' or services' ranges are.
type rangeClaim struct {
	cluster, what string
	prefixes      []netip.Prefix
}

// rangeClaims lists what clusters claim, in the order in which it is granted. Other clusters' services don't matter here.
func (p *planner) rangeClaims(names []string) []rangeClaim {
	var out []rangeClaim
	for _, name := range names {
		c := p.in.Clusters[name]
		pods := p.parseRanges(name, "pod", c.PodCidrs)
		if name == p.in.Cluster {
			pods = p.withNodes(pods)
		}
		out = append(out, rangeClaim{name, "pod", pods})
		if name == p.in.Cluster {
			out = append(out, rangeClaim{name, "service", p.parseRanges(name, "service", c.ServiceCidrs)})
		}
	}
	return out
}

// withNodes adds what our own nodes' pods really use: even if our cluster's record forgot to say so, nobody else gets it.
func (p *planner) withNodes(ranges []netip.Prefix) []netip.Prefix {
	for _, n := range p.nodes {
		if n.own {
			ranges = append(ranges, n.podCIDRs...)
		}
	}
	slices.SortFunc(ranges, comparePrefixes)
	return slices.Compact(ranges)
}

func (p *planner) parseRanges(cluster, what string, texts []string) []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			p.problems.add("cluster %s: %s CIDR %q is not a CIDR", cluster, what, text)
			continue
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	slices.SortFunc(prefixes, comparePrefixes)
	return slices.Compact(prefixes)
}

func (p *planner) grant(c rangeClaim, taken *claims) {
	owner := c.what + " CIDRs of cluster " + c.cluster
	id, known := p.clusterID(c.cluster)
	for _, prefix := range c.prefixes {
		if other, ok := taken.claim(prefix, owner); !ok {
			if other != owner {
				p.problems.add("cluster %s: %s CIDR %s overlaps with the %s, which keep it; give one of them another range",
					c.cluster, c.what, prefix, other)
			}
			continue
		}
		switch {
		case c.what == "service":
			p.out.CIDRs[prefix] = IPCacheEntry{Service: true, ClusterID: id}
		case c.cluster == p.in.Cluster:
			p.ranges[c.cluster] = append(p.ranges[c.cluster], prefix)
		case known:
			p.ranges[c.cluster] = append(p.ranges[c.cluster], prefix)
			// Nobody's address there: unknown, so dropped, until an endpoint's record says whose it is.
			p.out.CIDRs[prefix] = IPCacheEntry{Tunnel: true, RequireTunnel: true, ClusterID: id}
		}
	}
}

// indexEndpoints sorts the pods and hands each node its pods' addresses.
func (p *planner) indexEndpoints() {
	p.pods = make([]pod, 0, len(p.in.Endpoints))
	for _, e := range p.in.Endpoints {
		if e.Endpoint != nil {
			p.pods = append(p.pods, pod{Endpoint: e})
		}
	}
	slices.SortStableFunc(p.pods, func(a, b pod) int {
		return cmp.Or(p.compareClusters(a.Cluster, b.Cluster),
			cmp.Compare(a.Endpoint.Endpoint.Namespace, b.Endpoint.Endpoint.Namespace),
			cmp.Compare(a.Endpoint.Endpoint.Name, b.Endpoint.Endpoint.Name))
	})
	for i := range p.pods {
		e := &p.pods[i]
		e.addrs = p.usable(e.Endpoint)
		// Without a record of its node the address is still entered, without a peer: not reachable, and not open.
		if e.node = p.byKey[PeerKey(e.Cluster, e.Endpoint.Endpoint.Node)]; e.node != nil {
			e.node.pods = append(e.node.pods, e.addrs...)
		}
	}
}

// usable returns the addresses of an endpoint that its cluster may have. Another cluster's pods must lie in that
// cluster's ranges: a record may not speak for somebody else's address.
func (p *planner) usable(e Endpoint) []netip.Addr {
	var out []netip.Addr
	for _, text := range e.Endpoint.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			p.problems.group("cluster %s: endpoints with an invalid address are left out", e.Cluster)
			continue
		}
		addr = addr.Unmap()
		if e.Cluster != p.in.Cluster && !contains(p.ranges[e.Cluster], addr) {
			p.problems.group("cluster %s: endpoints outside of its pod CIDRs are left out", e.Cluster)
			continue
		}
		out = append(out, addr)
	}
	return out
}

func contains(ranges []netip.Prefix, addr netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func (p *planner) finish() Plan {
	p.out.Problems = p.problems.list()
	return p.out
}
