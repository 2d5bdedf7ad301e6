// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import "github.com/fairlead-mesh/fairlead/api/v1alpha1"

// tunnels sums up what agents report of their tunnels to one cluster.
type tunnels struct {
	ready     int
	reporting map[int]int // nodes by how many tunnels they report, at least one
	nodes     int         // that report any
}

// peers counts one node's tunnels to one cluster.
type peers struct{ reported, ready int }

// Tunnels counts the tunnels from this cluster's nodes to another's. A node that reports fewer than the other cluster has
// nodes wants them all.
func (x *Index) Tunnels(cluster string, theirNodes int) v1alpha1.NodeCounts {
	t := x.tunnels[cluster]
	if t == nil {
		return v1alpha1.NodeCounts{Total: int32(x.agents * theirNodes)}
	}
	total := (x.agents - t.nodes) * theirNodes
	for reported, nodes := range t.reporting {
		total += nodes * max(reported, theirNodes)
	}
	return v1alpha1.NodeCounts{Ready: int32(t.ready), Total: int32(total)}
}

// exchangePeers counts a node's new report of tunnels instead of the one before.
func (x *Index) exchangePeers(was, is *v1alpha1.MeshNode) {
	before, after := peersOf(was), peersOf(is)
	for cluster, p := range before {
		if after[cluster] == p {
			continue
		}
		t := x.tunnels[cluster]
		t.ready -= p.ready
		t.nodes--
		decrement(t.reporting, p.reported)
		if t.nodes == 0 {
			delete(x.tunnels, cluster)
		}
	}
	for cluster, p := range after {
		if before[cluster] == p {
			continue
		}
		t := x.tunnels[cluster]
		if t == nil {
			t = &tunnels{reporting: map[int]int{}}
			x.tunnels[cluster] = t
		}
		t.ready += p.ready
		t.nodes++
		t.reporting[p.reported]++
	}
}

func peersOf(agent *v1alpha1.MeshNode) map[string]peers {
	if agent == nil {
		return nil
	}
	out := map[string]peers{}
	for i := range agent.Status.Tunnels {
		if t := &agent.Status.Tunnels[i]; t.Wanted > 0 {
			out[t.Cluster] = peers{int(t.Wanted), int(t.Ready)}
		}
	}
	return out
}
