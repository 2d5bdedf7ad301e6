// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"fmt"
	"maps"
	"net/netip"
	"sync"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Mesh is the clusters that write, and the cluster that reads them.
type Mesh struct {
	Clusters []*Cluster
	Home     *Cluster

	mu   sync.Mutex
	want map[netip.Addr]uint32
}

// NewMesh makes n clusters of a shape, and home.
func NewMesh(n int, s, home Shape) (*Mesh, error) {
	if n < 1 || n >= HomeID {
		return nil, fmt.Errorf("%d clusters: want 1 to %d, since a cluster's number has 8 bits", n, HomeID-1)
	}
	m := &Mesh{Home: NewCluster(Home, HomeID, home), want: map[netip.Addr]uint32{}}
	for i := range n {
		m.Clusters = append(m.Clusters, NewCluster(fmt.Sprintf("c%d", i+1), uint8(i+1), s))
	}
	for _, c := range append([]*Cluster{m.Home}, m.Clusters...) {
		for _, p := range c.pods {
			m.want[c.address(p.node, p.host)] = p.identity
		}
	}
	return m, nil
}

// Encode gives what a cluster publishes at first.
func (c *Cluster) Encode() (record.Set, error) { return record.NewSet(c.Records()...) }

// Happened takes note of a change.
func (m *Mesh) Happened(ch Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, id := range ch.Want {
		if id == 0 {
			delete(m.want, addr)
		} else {
			m.want[addr] = id
		}
	}
}

// Want is the identity of each pod address that the mesh knows now.
func (m *Mesh) Want() map[netip.Addr]uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.want)
}

// Size counts what the mesh holds at first, home included.
func (m *Mesh) Size() (s Shape) {
	for _, c := range append([]*Cluster{m.Home}, m.Clusters...) {
		s.Nodes += c.Shape.Nodes
		s.Identities += c.Shape.Identities
		s.Endpoints += c.Shape.Endpoints
	}
	return s
}

// Records is how many records the mesh has at first.
func (m *Mesh) Records() int {
	s := m.Size()
	return 1 + len(m.Clusters) + s.Nodes + s.Identities + s.Endpoints
}
