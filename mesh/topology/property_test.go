// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"maps"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Whatever the clusters claim, what proves a packet's source stays a proof.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genWorld(t).input()
		p := Compute(in)
		checkAllowedIPs(t, in, p)
		checkAddresses(t, in, p)
		checkRanges(t, in, p)
	})
}

func checkAllowedIPs(t *rapid.T, in Input, p Plan) {
	seen := map[uint16]bool{}
	for i, a := range p.Peers {
		if a.Index == 0 || seen[a.Index] {
			t.Fatalf("index %d twice or zero", a.Index)
		}
		seen[a.Index] = true
		if a.Cluster == in.Cluster && a.Node == in.Self {
			t.Fatal("this node is its own peer")
		}
		for _, b := range p.Peers[i+1:] {
			if a.PublicKey == b.PublicKey {
				t.Fatalf("%s and %s have one key", PeerKey(a.Cluster, a.Node), PeerKey(b.Cluster, b.Node))
			}
			for _, x := range a.AllowedIPs {
				for _, y := range b.AllowedIPs {
					if x.Overlaps(y) {
						t.Fatalf("%s of %s overlaps %s of %s", x, PeerKey(a.Cluster, a.Node), y, PeerKey(b.Cluster, b.Node))
					}
				}
			}
		}
		for x := range a.AllowedIPs {
			for y := range a.AllowedIPs[:x] {
				if a.AllowedIPs[x].Overlaps(a.AllowedIPs[y]) {
					t.Fatalf("%s claims %v twice", a.Node, a.AllowedIPs)
				}
			}
		}
	}
	if !encryptionOf(in.Clusters[in.Cluster]).On && len(p.Peers) > 0 {
		t.Fatal("peers without encryption")
	}
}

func checkAddresses(t *rapid.T, in Input, p Plan) {
	own := map[netip.Addr]bool{}
	for _, n := range in.Nodes {
		if n.Cluster == in.Cluster && n.Name == in.Self {
			for _, a := range n.Addresses {
				own[a] = true
			}
		}
	}
	peers := map[uint16]Peer{}
	for _, peer := range p.Peers {
		peers[peer.Index] = peer
	}
	for addr, e := range p.IPCache {
		if own[addr] {
			t.Fatalf("this node's address %s is entered: %+v", addr, e)
		}
		if far := e.ClusterID != 2; far && !e.Flags.Has(Tunnel|RequireTunnel) {
			t.Fatalf("%s of another cluster passes outside of the tunnel: %+v", addr, e)
		}
		if encryptionOf(in.Clusters[in.Cluster]).Strict && e.Flags.Has(Tunnel) && !e.Flags.Has(NodeAddress) && !e.Flags.Has(RequireTunnel) {
			t.Fatalf("%s may be sent in plain in strict mode: %+v", addr, e)
		}
		if e.Identity != identity.RemoteNode && identity.ClusterOf(e.Identity) != e.ClusterID {
			t.Fatalf("%s: identity %d of cluster %d", addr, e.Identity, e.ClusterID)
		}
		if e.Peer != 0 && e.ClusterID != in.Clusters[peers[e.Peer].Cluster].ID {
			t.Fatalf("%s of cluster %d lies behind peer %s", addr, e.ClusterID, PeerKey(peers[e.Peer].Cluster, peers[e.Peer].Node))
		}
	}
}

func checkRanges(t *rapid.T, in Input, p Plan) {
	on := encryptionOf(in.Clusters[in.Cluster]).On
	for a, ea := range p.CIDRs {
		if ea.Identity != 0 || ea.Flags.Has(Tunnel) && ea.ClusterID == 2 || ea.Flags == 0 && ea.ClusterID != 2 {
			t.Fatalf("range %s: %+v", a, ea)
		}
		for b := range p.CIDRs {
			if a != b && a.Overlaps(b) {
				t.Fatalf("ranges %s and %s overlap", a, b)
			}
		}
		for _, ours := range in.Clusters[in.Cluster].PodCIDRs {
			if ea.Flags.Has(Tunnel) && a.Overlaps(ours) {
				t.Fatalf("another cluster's %s overlaps our %s", a, ours)
			}
		}
	}
	routes := map[netip.Prefix]bool{}
	for _, r := range p.Routes {
		if routes[r.Dst] {
			t.Fatalf("two routes to %s", r.Dst)
		}
		routes[r.Dst] = true
		if r.Via == ViaTunnel && !on {
			t.Fatalf("a route into a tunnel that is not there: %+v", r)
		}
	}
	for prefix, e := range p.CIDRs {
		if e.Flags.Has(Tunnel) && routes[prefix] != on {
			t.Fatalf("another cluster's range %s has no route, or one into nowhere", prefix)
		}
	}
}

func TestPlanIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genWorld(t).input()
		p := Compute(in)
		in.Nodes = rapid.Permutation(in.Nodes).Draw(t, "nodes' order")
		in.Endpoints = rapid.Permutation(in.Endpoints).Draw(t, "endpoints' order")
		if again := Compute(in); !reflect.DeepEqual(p, again) {
			t.Fatalf("another order: %+v\nwas %+v", again, p)
		}
		in.PreviousIndexes = p.Indexes()
		if next := Compute(in); !maps.Equal(next.Indexes(), p.Indexes()) {
			t.Fatalf("indexes moved: %v, were %v", next.Indexes(), p.Indexes())
		}
	})
}
