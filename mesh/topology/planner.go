// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Config is for which node a Planner plans.
type Config struct {
	Self    string // this node's name
	Cluster string // its cluster, and by the record of that what is encrypted
	OwnCNI  bool   // pods' routes between nodes are ours to set

	// Indexes of peers by PeerKey that an earlier run left in the kernel. Those peers get them again, and nobody else gets them
	// before [Planner.ReleaseIndexes]. Of peers that are not known, the key is [UnknownPeerKey].
	Indexes map[string]uint16
	// Keyed are nodes of the cluster, by name, that had published a key in an earlier run. See [Planner.tunnelTo].
	Keyed map[string]bool
}

// Planner keeps a plan up to date. Set… says what changed; Step plans it. In between, the plan is that of the last Step.
//
// A change costs what depends on it: an endpoint its addresses; a node its endpoints if its key or its blocks changed; a
// cluster's record its own nodes and endpoints, and those of the clusters it overlaps with, if its id or ranges changed.
// What several claim costs as many claimants as there are. Records are kept, not copied: they must not be changed.
// A Planner is not safe for concurrent use.
type Planner struct {
	cfg  Config
	enc  record.Encryption
	self *nodeState

	clusters      map[string]*clusterState
	endpoints     *endpointIndex
	own           *clusterState
	dirtyClusters []*clusterState
	dirtyNodes    []*nodeState

	ranges    *ledger[*rangeOwner]
	allowed   *ledger[*nodeState]
	addresses *addresses
	problems  *problems
	disputes  map[netip.Addr][]problem // contested addresses

	keys      map[record.PublicKey][]*nodeState // who would be a peer with it, in order
	dirtyKeys map[record.PublicKey]struct{}
	rechosen  []*nodeState
	waiting   []*nodeState // for an index
	indexes   *indexes
	keyed     map[string]bool // by an earlier run, of nodes that have not come yet

	peers      map[uint16]*Peer // as last emitted
	dirtyPeers map[uint16]struct{}

	within, outside int // addresses of own pods by whether they lie in their node's pod CIDRs
	ownClosed       bool

	mesh        map[netip.Prefix]IPCacheEntry // the mesh's ranges, as last emitted
	dirtyMesh   map[netip.Prefix]struct{}
	routes      map[netip.Prefix]Route // as last emitted
	dirtyRoutes map[netip.Prefix]struct{}
}

// NewPlanner plans for a node that knows of nothing yet.
func NewPlanner(cfg Config) *Planner {
	p := &Planner{
		cfg:      cfg,
		enc:      encryptionOf(nil),
		clusters: map[string]*clusterState{},

		endpoints: newEndpointIndex(),

		ranges:    newLedger[*rangeOwner](),
		allowed:   newLedger[*nodeState](),
		addresses: newAddresses(),
		problems:  newProblems(),
		disputes:  map[netip.Addr][]problem{},

		keys:      map[record.PublicKey][]*nodeState{},
		dirtyKeys: map[record.PublicKey]struct{}{},
		indexes:   newIndexes(cfg.Indexes),
		keyed:     maps.Clone(cfg.Keyed),

		peers:      map[uint16]*Peer{},
		dirtyPeers: map[uint16]struct{}{},

		mesh:        map[netip.Prefix]IPCacheEntry{},
		dirtyMesh:   map[netip.Prefix]struct{}{},
		routes:      map[netip.Prefix]Route{},
		dirtyRoutes: map[netip.Prefix]struct{}{},
	}
	p.cfg.Indexes, p.cfg.Keyed = nil, nil
	p.own = p.cluster(cfg.Cluster)
	p.self = p.node(p.own, cfg.Self)
	p.self.self = true
	p.problems.add(problem{kind: problemNoSelf, about: cfg.Self})
	p.markCluster(p.own)
	return p
}

// SetCluster gives the record of a cluster; nil removes it. One without an id is as good as none.
func (p *Planner) SetCluster(name string, rec *record.Cluster) {
	if rec != nil && rec.ID == 0 {
		rec = nil
	}
	c := p.cluster(name)
	c.next = rec
	p.markCluster(c)
}

// SetNode gives the record of a node; nil removes it.
func (p *Planner) SetNode(cluster, name string, rec *record.Node) {
	n := p.node(p.cluster(cluster), name)
	n.next = rec
	p.markNode(n)
}

// SetEndpoint gives the record of an endpoint; nil removes it.
func (p *Planner) SetEndpoint(cluster, namespace, name string, rec *record.Endpoint) {
	c := p.cluster(cluster)
	e := p.endpoints.get(c, namespace, name)
	switch {
	case rec == nil && e == nil:
		p.markCluster(c) // it may have been made for this
	case rec == nil:
		p.removeEndpoint(e)
		p.endpoints.remove(e)
		p.markNode(e.node) // perhaps nothing is left of it
	case e == nil:
		e = &endpointState{rec: rec}
		p.addEndpoint(e, p.node(c, rec.Node))
		p.endpoints.add(e)
	case e.rec.Node == rec.Node && e.rec.Identity == rec.Identity && slices.Equal(e.rec.Addresses, rec.Addresses):
		e.rec = rec
	default:
		p.removeEndpoint(e)
		p.markNode(e.node)
		e.rec = rec
		p.addEndpoint(e, p.node(c, rec.Node))
	}
}

// Problems say what could not be planned as wanted, as Plan.Problems does: the first lines, and counts of the rest.
func (p *Planner) Problems() []string { return p.problems.list() }

// Indexes of the peers by PeerKey, and of those that are remembered and haven't come yet.
func (p *Planner) Indexes() map[string]uint16 { return p.indexes.all() }

// ReleaseIndexes gives back indexes that are kept for peers that haven't come. Call it when all records are there and no row in
// the kernel bears them any more: packets to the pods of such a row are encrypted for the peer with its index.
func (p *Planner) ReleaseIndexes() { p.indexes.releaseKept() }

// Encryption is what the plan does.
func (p *Planner) Encryption() record.Encryption { return p.enc }

func (p *Planner) cluster(name string) *clusterState {
	c := p.clusters[name]
	if c == nil {
		c = &clusterState{name: name, own: name == p.cfg.Cluster, nodes: map[string]*nodeState{}, hash: p.endpoints.hashCluster(name)}
		c.pods, c.services = rangeOwner{cluster: c}, rangeOwner{cluster: c, services: true}
		p.clusters[name] = c
	}
	return c
}

func (p *Planner) node(c *clusterState, name string) *nodeState {
	n := c.nodes[name]
	if n == nil {
		n = &nodeState{cluster: c, name: name, keyed: c.own && p.keyed[name]}
		if n.keyed {
			delete(p.keyed, name)
		}
		n.tunnel = p.tunnelTo(n)
		c.nodes[name] = n
	}
	return n
}

func (p *Planner) markCluster(c *clusterState) {
	if !c.dirty {
		c.dirty = true
		p.dirtyClusters = append(p.dirtyClusters, c)
	}
}

func (p *Planner) markNode(n *nodeState) {
	if !n.dirty {
		n.dirty = true
		p.dirtyNodes = append(p.dirtyNodes, n)
	}
}

// forget drops what nothing is left of.
func (p *Planner) forget(nodes []*nodeState, clusters []*clusterState) {
	for _, n := range nodes {
		if n.empty() && !n.self {
			delete(n.cluster.nodes, n.name)
			clusters = append(clusters, n.cluster)
		}
	}
	for _, c := range clusters {
		if c.empty() {
			delete(p.clusters, c.name)
		}
	}
}

// Step plans what was set since the last one.
func (p *Planner) Step() Delta {
	var d Delta
	clusters := p.planClusters()
	nodes := p.planNodes()
	p.planOwnRanges()
	p.planAllowed()
	p.planPeers(&d)
	p.planMesh(&d)
	p.planRoutes(&d)
	p.planAddresses(&d)
	p.forget(nodes, clusters)
	return d
}

// take lists a set and empties it. A new map is made, because clearing one that was large once costs what it was.
func take[K comparable](set *map[K]struct{}) []K {
	if len(*set) == 0 {
		return nil
	}
	out := slices.Collect(maps.Keys(*set))
	*set = map[K]struct{}{}
	return out
}
