// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Compute plans. It never fails: what can't be used is left out, which drops packets and opens nothing, and Problems
// say what and why.
func Compute(in Input) Plan {
	p := newComputation(in)
	p.clusterRanges()
	p.indexEndpoints()
	p.claimAddresses()
	p.peers()
	p.nodeAddresses()
	p.endpoints()
	p.ownRanges()
	p.routes()
	p.out.Problems = p.problems.list()
	return p.out
}

// computation holds what the steps of Compute hand to each other.
type computation struct {
	in       Input
	enc      record.Encryption
	out      Plan
	problems *problems

	nodes  []*plannedNode // own cluster first, then by cluster and name: whoever is earlier keeps what two claim
	byKey  map[string]*plannedNode
	self   *plannedNode
	ranges map[string][]netip.Prefix // cluster → the pod CIDRs it got
	pods   []plannedPod              // in the same order as nodes
}

type plannedNode struct {
	Node
	id      uint8
	own     bool           // of this node's cluster
	pods    []netip.Addr   // addresses of its pods
	blocks  []netip.Prefix // what it claims first, its own addresses among them
	singles []netip.Prefix // and then, for its pods
	allowed []netip.Prefix
	index   uint16
}

// plannedPod is an endpoint with the addresses that its cluster may have.
type plannedPod struct {
	Endpoint
	addrs []netip.Addr
	node  *plannedNode // nil: its node has no record
}

func (n *plannedNode) key() string    { return PeerKey(n.Cluster, n.Name) }
func (n *plannedNode) String() string { return nodeTitle(n.key()) }
func (e *plannedPod) String() string  { return podTitle(e.Cluster, e.Namespace, e.Name) }

func newComputation(in Input) *computation {
	// A record without an id is as good as none.
	in.Clusters = maps.Clone(in.Clusters)
	maps.DeleteFunc(in.Clusters, func(_ string, c *record.Cluster) bool { return c == nil || c.ID == 0 })
	p := &computation{
		in:       in,
		enc:      encryptionOf(in.Clusters[in.Cluster]),
		problems: newProblems(),
		byKey:    make(map[string]*plannedNode, len(in.Nodes)),
		ranges:   map[string][]netip.Prefix{},
	}
	p.out.IPCache = make(map[netip.Addr]IPCacheEntry, len(in.Endpoints)+len(in.Nodes))
	p.out.CIDRs = map[netip.Prefix]IPCacheEntry{}

	sorted := slices.Clone(in.Nodes)
	slices.SortFunc(sorted, func(a, b Node) int {
		return cmp.Or(p.compareClusters(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name))
	})
	for _, n := range sorted {
		p.addNode(n)
	}
	p.self = p.byKey[PeerKey(in.Cluster, in.Self)]
	p.problems.set(problem{kind: problemNoSelf, about: in.Self}, p.self == nil)
	return p
}

func (p *computation) addNode(n Node) {
	state := &plannedNode{Node: n, own: n.Cluster == p.in.Cluster}
	id, known := p.clusterID(n.Cluster)
	if !known && !state.own {
		p.problems.count(problemNodesLeftOut, n.Cluster, 1)
		return
	}
	state.id = id
	p.nodes = append(p.nodes, state)
	p.byKey[state.key()] = state
}

// compareClusters orders clusters: ours before all others, so that nobody takes from us what both claim.
func (p *computation) compareClusters(a, b string) int {
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

func (p *computation) clusterID(name string) (uint8, bool) {
	c := p.in.Clusters[name]
	if c == nil {
		return 0, false
	}
	return c.ID, true
}

// clusterRanges gives each cluster its pod CIDRs. A range that two clusters claim stays with the first; the other
// cluster's pods in it are out of reach, and Problems say so.
func (p *computation) clusterRanges() {
	names := []string{p.in.Cluster}
	for name := range p.in.Clusters {
		if _, known := p.clusterID(name); known && name != p.in.Cluster {
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
	cluster  string
	services bool
	prefixes []netip.Prefix
}

// rangeClaims lists what clusters claim, in the order in which it is granted. Other clusters' services don't matter here.
// To our cluster's record is added what our own nodes' pods really use: even if the record forgot to say so, or isn't
// here, nobody else gets it.
func (p *computation) rangeClaims(names []string) []rangeClaim {
	var out []rangeClaim
	for _, name := range names {
		var pods, services []netip.Prefix
		if c := p.in.Clusters[name]; c != nil {
			pods, services = slices.Clone(c.PodCIDRs), slices.Clone(c.ServiceCIDRs)
		}
		if name != p.in.Cluster {
			out = append(out, rangeClaim{name, false, sorted(pods)})
			continue
		}
		for _, n := range p.nodes {
			if n.own {
				pods = append(pods, n.PodCIDRs...)
			}
		}
		out = append(out, rangeClaim{name, false, sorted(pods)}, rangeClaim{name, true, sorted(services)})
	}
	return out
}

func sorted(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}

func (p *computation) grant(c rangeClaim, taken *claims) {
	owner, kind := rangeOwnerName(c.cluster, c.services), problemPodRange
	if c.services {
		kind = problemServiceRange
	}
	id, _ := p.clusterID(c.cluster)
	for _, prefix := range c.prefixes {
		if other, ok := taken.claim(prefix, owner); !ok {
			if other != owner {
				p.problems.add(problem{kind: kind, about: c.cluster, other: other, prefix: prefix})
			}
			continue
		}
		if c.services {
			p.out.CIDRs[prefix] = IPCacheEntry{Flags: ServiceRange, ClusterID: id}
			continue
		}
		p.ranges[c.cluster] = append(p.ranges[c.cluster], prefix)
		if c.cluster != p.in.Cluster {
			// Nobody's address there: unknown, so dropped, until an endpoint's record claims it.
			p.out.CIDRs[prefix] = IPCacheEntry{Flags: Tunnel | RequireTunnel, ClusterID: id}
		}
	}
}

func rangeOwnerName(cluster string, services bool) string {
	if services {
		return "service CIDRs of cluster " + cluster
	}
	return "pod CIDRs of cluster " + cluster
}

// indexEndpoints sorts the pods and hands each node its pods' addresses.
func (p *computation) indexEndpoints() {
	p.pods = make([]plannedPod, 0, len(p.in.Endpoints))
	for _, e := range p.in.Endpoints {
		p.pods = append(p.pods, plannedPod{Endpoint: e})
	}
	slices.SortFunc(p.pods, func(a, b plannedPod) int {
		return cmp.Or(p.compareClusters(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for i := range p.pods {
		e := &p.pods[i]
		if _, known := p.clusterID(e.Cluster); !known && e.Cluster != p.in.Cluster {
			p.problems.count(problemEndpointsLeftOut, e.Cluster, 1)
			continue
		}
		e.addrs = p.usable(e.Endpoint)
		// Without a record of its node the address is still entered, without a peer: not reachable, and not open.
		if e.node = p.byKey[PeerKey(e.Cluster, e.Node)]; e.node != nil {
			e.node.pods = append(e.node.pods, e.addrs...)
		}
	}
}

// usable returns the addresses of an endpoint that its cluster may have. Another cluster's pods must lie in that
// cluster's ranges: a record can't claim somebody else's address.
func (p *computation) usable(e Endpoint) []netip.Addr {
	if e.Cluster == p.in.Cluster {
		return e.Addresses
	}
	var out []netip.Addr
	for _, addr := range e.Addresses {
		if !contains(p.ranges[e.Cluster], addr) {
			p.problems.count(problemEndpointsOutside, e.Cluster, 1)
			continue
		}
		out = append(out, addr)
	}
	return out
}
