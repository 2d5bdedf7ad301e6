// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Bounds of what is stored of a node: a mesh has at most 255 clusters, and an agent names no more broken tunnels.
const (
	maxClusters = 255
	maxBroken   = 8
)

// tunnelsOf sums up a node's tunnels by cluster.
func tunnelsOf(req *relayv1.ReportRequest) []v1alpha1.NodeTunnels {
	reported := req.GetTunnels()
	if len(reported) == 0 {
		reported = sumPeers(req.GetPeers())
	}
	out := map[string]v1alpha1.NodeTunnels{}
	for _, t := range reported {
		n := v1alpha1.NodeTunnels{
			Cluster: t.GetCluster(), Wanted: clamp(t.GetWanted()), Ready: clamp(min(t.GetReady(), t.GetWanted())),
			Connected: clamp(min(t.GetConnected(), t.GetReady(), t.GetWanted())), LatestHandshakeTime: unix(t.GetLatestHandshakeUnix()),
		}
		for _, b := range t.GetBroken()[:min(len(t.GetBroken()), maxBroken)] {
			n.Broken = append(n.Broken, v1alpha1.BrokenTunnel{Node: b.GetNode(), LastHandshakeTime: unix(b.GetLastHandshakeUnix()), Error: b.GetError()})
		}
		out[n.Cluster] = n
	}
	sorted := make([]v1alpha1.NodeTunnels, 0, len(out))
	for _, n := range out {
		sorted = append(sorted, n)
	}
	slices.SortFunc(sorted, func(a, b v1alpha1.NodeTunnels) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return sorted[:min(len(sorted), maxClusters)]
}

// sumPeers sums up what an agent reports that knows no sums.
func sumPeers(peers []*relayv1.PeerHealth) []*relayv1.Tunnels {
	peers = slices.SortedFunc(slices.Values(peers), func(a, b *relayv1.PeerHealth) int { return cmp.Compare(a.GetNode(), b.GetNode()) })
	sums := map[string]*relayv1.Tunnels{}
	var out []*relayv1.Tunnels
	for _, p := range peers {
		t := sums[p.GetCluster()]
		if t == nil {
			t = &relayv1.Tunnels{Cluster: p.GetCluster()}
			sums[t.Cluster] = t
			out = append(out, t)
		}
		t.Wanted++
		t.LatestHandshakeUnix = max(t.LatestHandshakeUnix, p.GetLastHandshakeUnix())
		if p.GetReady() {
			t.Ready++
		} else {
			t.Broken = append(t.Broken, &relayv1.BrokenTunnel{Node: p.GetNode(), LastHandshakeUnix: p.GetLastHandshakeUnix()})
		}
	}
	return out
}

// unix is nil for 0, which means never.
func unix(seconds int64) *metav1.Time {
	if seconds <= 0 {
		return nil
	}
	at := metav1.Unix(seconds, 0)
	return &at
}
