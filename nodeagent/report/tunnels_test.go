// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

var now = time.Unix(1_000_000, 0)

var same = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}

// Whatever the order of the peers: each is counted once, and the broken ones that are named are the first by name.
func TestTunnelsSumUpPeers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Peer {
			p := Peer{
				Cluster: fmt.Sprintf("c%02d", rapid.IntRange(0, 11).Draw(t, "cluster")), Node: fmt.Sprintf("n%02d", rapid.IntRange(0, 15).Draw(t, "node")),
				Ready: rapid.IntRange(0, 3).Draw(t, "ready") == 0,
			}
			if age := rapid.SampledFrom([]time.Duration{-1, 0, session, session + 1, time.Hour}).Draw(t, "age"); age >= 0 {
				p.LastHandshake = now.Add(-age)
			}
			return p
		}), 0, 150, func(p Peer) string { return p.Cluster + "/" + p.Node }).Draw(t, "peers")
		got := SumTunnels(slices.Values(peers), now)
		if diff := cmp.Diff(got, SumTunnels(slices.Values(rapid.Permutation(peers).Draw(t, "order")), now), same); diff != "" {
			t.Fatalf("another order gives another sum:\n%s", diff)
		}
		named, names := 0, 0
		for i, c := range got {
			if i > 0 && got[i-1].Cluster >= c.Cluster {
				t.Fatalf("%s comes after %s", c.Cluster, got[i-1].Cluster)
			}
			want := Tunnels{Cluster: c.Cluster}
			var broken []Peer
			for _, p := range peers {
				switch {
				case p.Cluster != c.Cluster:
					continue
				case !p.Ready:
					broken = append(broken, p)
				case p.LastHandshake.IsZero() || p.LastHandshake.Before(now.Add(-session)):
					want.Ready++
				default:
					want.Ready++
					want.Connected++
				}
				want.Wanted++
				if p.LastHandshake.After(want.LatestHandshake) {
					want.LatestHandshake = p.LastHandshake
				}
			}
			slices.SortFunc(broken, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
			want.Broken = broken[:min(len(broken), maxBroken, maxBrokenInAll-named)]
			named, names = named+len(c.Broken), names+want.Wanted
			if diff := cmp.Diff(want, c, same); diff != "" {
				t.Fatalf("%s: -want +got:\n%s", c.Cluster, diff)
			}
		}
		if names != len(peers) {
			t.Fatalf("%d of %d peers are counted", names, len(peers))
		}
	})
}

func TestTunnelsGoUp(t *testing.T) {
	s := State{Tunnels: []Tunnels{{
		Cluster: "west", Wanted: 3, Ready: 2, Connected: 1, LatestHandshake: now,
		Broken: []Peer{{Cluster: "west", Node: "n", Error: "refused", LastHandshake: now.Add(-time.Hour)}},
	}}}
	want := []*relayv1.Tunnels{{
		Cluster: "west", Wanted: 3, Ready: 2, Connected: 1, LatestHandshakeUnix: 1_000_000,
		Broken: []*relayv1.BrokenTunnel{{Node: "n", Error: "refused", LastHandshakeUnix: 996_400}},
	}}
	if diff := cmp.Diff(want, s.Request().GetTunnels(), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
