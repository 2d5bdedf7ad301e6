// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// endpointState is an endpoint in its node's list. There are many: the record is the agent's, and nothing is copied.
type endpointState struct {
	rec        *record.Endpoint
	node       *nodeState
	next, prev *endpointState
	sameBucket *endpointState // of the endpointIndex
}

// compare orders endpoints: who is earlier keeps an address that two claim.
func (e *endpointState) compare(f *endpointState) int {
	if e == f {
		return 0
	}
	return cmp.Or(e.node.cluster.compare(f.node.cluster), strings.Compare(e.rec.Namespace, f.rec.Namespace), strings.Compare(e.rec.Name, f.rec.Name))
}

func (e *endpointState) String() string {
	return podTitle(e.node.cluster.name, e.rec.Namespace, e.rec.Name)
}

func (e *endpointState) link(n *nodeState) {
	e.node, e.prev, e.next = n, nil, n.pods
	if n.pods != nil {
		n.pods.prev = e
	}
	n.pods = e
}

func (e *endpointState) unlink() {
	if e.prev == nil {
		e.node.pods = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.next, e.prev = nil, nil
}

// usable calls fn for the addresses of an endpoint that its cluster may have.
func (e *endpointState) usable(fn func(netip.Addr)) (outside int) {
	c := e.node.cluster
	if !c.listed() {
		return 0
	}
	for _, addr := range e.rec.Addresses {
		if c.own || contains(c.ranges, addr) {
			fn(addr)
		} else {
			outside++
		}
	}
	return outside
}

// differs says whether other addresses of an endpoint lie in some ranges than in others.
func (e *endpointState) differs(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(e.rec.Addresses, func(addr netip.Addr) bool { return contains(a, addr) != contains(b, addr) })
}

// endpointIndex finds endpoints by name. It is a hash table whose keys are in the records, because a map that holds them
// once more would take more memory than all else that is kept of an endpoint.
type endpointIndex struct {
	seed    maphash.Seed
	buckets []*endpointState // as many as a power of two
	n       int
}

func newEndpointIndex() *endpointIndex {
	return &endpointIndex{seed: maphash.MakeSeed(), buckets: make([]*endpointState, 16)}
}

// hashCluster is what nodes and endpoints of a cluster have in common.
func (x *endpointIndex) hashCluster(name string) uint64 { return maphash.String(x.seed, name) }

func (x *endpointIndex) bucket(c *clusterState, namespace, name string) **endpointState {
	h := c.hash ^ bits.RotateLeft64(maphash.String(x.seed, namespace), 21) ^ bits.RotateLeft64(maphash.String(x.seed, name), 42)
	return &x.buckets[h&uint64(len(x.buckets)-1)]
}

func (x *endpointIndex) get(c *clusterState, namespace, name string) *endpointState {
	e := *x.bucket(c, namespace, name)
	for e != nil && (e.node.cluster != c || e.rec.Name != name || e.rec.Namespace != namespace) {
		e = e.sameBucket
	}
	return e
}

// add adds an endpoint that isn't there yet.
func (x *endpointIndex) add(e *endpointState) {
	if x.n++; x.n > len(x.buckets) {
		x.resize(2 * len(x.buckets))
	}
	x.push(e)
}

func (x *endpointIndex) push(e *endpointState) {
	b := x.bucket(e.node.cluster, e.rec.Namespace, e.rec.Name)
	e.sameBucket, *b = *b, e
}

// remove removes an endpoint that is there.
func (x *endpointIndex) remove(e *endpointState) {
	at := x.bucket(e.node.cluster, e.rec.Namespace, e.rec.Name)
	for *at != e {
		at = &(*at).sameBucket
	}
	*at, e.sameBucket = e.sameBucket, nil
	if x.n--; len(x.buckets) > 16 && x.n < len(x.buckets)/4 {
		x.resize(len(x.buckets) / 2)
	}
}

func (x *endpointIndex) resize(n int) {
	old := x.buckets
	x.buckets = make([]*endpointState, n)
	for _, e := range old {
		for e != nil {
			next := e.sameBucket
			x.push(e)
			e = next
		}
	}
}
