// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// clusterState is what a Planner knows of a cluster. It exists while there is a record of it, its nodes or its endpoints.
type clusterState struct {
	name      string
	own       bool
	rec, next *record.Cluster // as planned with, as set since
	dirty     bool
	nodes     map[string]*nodeState // also those that only endpoints name
	hash      uint64

	pods, services  rangeOwner
	claimedPods     []netip.Prefix // by the record
	claimedServices []netip.Prefix
	ranges          []netip.Prefix // the pod CIDRs it got, as its endpoints and nodes are planned with
	granted         []netip.Prefix // the same, as just decided
	regranted       bool
}

// listed says whether a cluster's nodes and endpoints can be used.
func (c *clusterState) listed() bool { return c.own || c.rec != nil }

func (c *clusterState) id() uint8 {
	if c.rec == nil {
		return 0
	}
	return c.rec.ID
}

func (c *clusterState) empty() bool {
	return !c.own && c.rec == nil && c.next == nil && len(c.nodes) == 0
}

// endpoints calls yield for all endpoints of a cluster.
func (c *clusterState) endpoints(yield func(*endpointState) bool) {
	for _, n := range c.nodes {
		for e := n.pods; e != nil; e = e.next {
			if !yield(e) {
				return
			}
		}
	}
}

// compare orders clusters: ours before all others, so that nobody takes from us what both claim.
func (c *clusterState) compare(d *clusterState) int {
	switch {
	case c == d:
		return 0
	case c.own:
		return -1
	case d.own:
		return 1
	}
	return strings.Compare(c.name, d.name)
}

// rangeOwner owns a cluster's pod CIDRs, or its service CIDRs.
type rangeOwner struct {
	cluster  *clusterState
	services bool
}

func (o *rangeOwner) compare(other *rangeOwner) int {
	return cmp.Or(o.cluster.compare(other.cluster), compareBools(o.services, other.services))
}

func (o *rangeOwner) compareGroups(other *rangeOwner) int { return o.cluster.compare(other.cluster) }

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (o *rangeOwner) String() string { return rangeOwnerName(o.cluster.name, o.services) }

// nodeState is what a Planner knows of a node. It exists while there is a record of it or of its endpoints.
type nodeState struct {
	cluster   *clusterState
	name      string
	self      bool
	rec, next *record.Node // as planned with, as set since; nil while the cluster isn't listed
	dirty     bool
	leftOut   bool

	ranges   []netip.Prefix // what it adds to our cluster's pod CIDRs
	addrs    []netip.Addr
	podCIDRs []netip.Prefix
	blocks   []netip.Prefix // of podCIDRs, those that it claims
	allowed  []netip.Prefix // claims that were accepted, sorted
	problems []problem
	pods     *endpointState

	key     record.PublicKey // with which it would be a peer
	sameKey *nodeState       // who is the first with it, if another is
	chosen  bool             // it is the first itself
	keyed   bool             // it has published a key, now or before
	tunnel  bool             // its pods are reached through the tunnel
	index   uint16
}

// String is the node's PeerKey.
func (n *nodeState) String() string { return PeerKey(n.cluster.name, n.name) }

// compare orders nodes: this one before all others, so that nobody takes its own addresses.
func (n *nodeState) compare(m *nodeState) int {
	if n == m {
		return 0
	}
	return cmp.Or(n.compareGroups(m), strings.Compare(n.name, m.name))
}

// compareGroups orders nodes by cluster, but this one is a group of its own.
func (n *nodeState) compareGroups(m *nodeState) int {
	switch {
	case n == m:
		return 0
	case n.self:
		return -1
	case m.self:
		return 1
	}
	return n.cluster.compare(m.cluster)
}

func (n *nodeState) empty() bool { return n.rec == nil && n.next == nil && n.pods == nil }
