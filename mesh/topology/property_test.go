// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// genInput makes a mesh in which clusters and nodes claim whatever they like, each other's addresses included.
func genInput(t *rapid.T) Input {
	in := Input{
		Self: "n0", Cluster: "b", EncryptionOn: rapid.Bool().Draw(t, "on"), ScopeAll: rapid.Bool().Draw(t, "all"),
		Strict: rapid.Bool().Draw(t, "strict"), OwnCNI: rapid.Bool().Draw(t, "cni"), Clusters: map[string]*recordv1.Cluster{},
	}
	octet := rapid.IntRange(0, 3)
	cidr := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
			return fmt.Sprintf("fd00:%d:%d::/%d", octet.Draw(t, "a"), octet.Draw(t, "b"), rapid.SampledFrom([]int{16, 32, 48}).Draw(t, "bits"))
		}
		return fmt.Sprintf("10.%d.%d.0/%d", octet.Draw(t, "a"), octet.Draw(t, "b"), rapid.SampledFrom([]int{8, 14, 16, 23, 24, 32}).Draw(t, "bits"))
	})
	address := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
			return fmt.Sprintf("fd00:%d:%d::%d", octet.Draw(t, "a"), octet.Draw(t, "b"), octet.Draw(t, "c"))
		}
		return fmt.Sprintf("10.%d.%d.%d", octet.Draw(t, "a"), octet.Draw(t, "b"), octet.Draw(t, "c"))
	})
	for c, cluster := range []string{"a", "b", "c"} {
		in.Clusters[cluster] = &recordv1.Cluster{
			Name: cluster, Id: uint32(c + 1), PodCidrs: rapid.SliceOfN(cidr, 0, 3).Draw(t, "ranges"), ServiceCidrs: rapid.SliceOfN(cidr, 0, 1).Draw(t, "services"),
		}
		for n := range rapid.IntRange(0, 4).Draw(t, "nodes") {
			rec := &recordv1.Node{
				Name: fmt.Sprintf("n%d", n), Addresses: rapid.SliceOfN(address, 0, 2).Draw(t, "addresses"),
				PodCidrs: rapid.SliceOfN(cidr, 0, 2).Draw(t, "pod CIDRs"), PodsInPodCidrs: rapid.Bool().Draw(t, "in"), WireguardPort: 1,
			}
			if rapid.IntRange(0, 3).Draw(t, "key") > 0 {
				rec.WireguardPublicKey = key(fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "which")))
			}
			in.Nodes = append(in.Nodes, Node{cluster, rec})
		}
		for e := range rapid.IntRange(0, 5).Draw(t, "endpoints") {
			in.Endpoints = append(in.Endpoints, Endpoint{cluster, &recordv1.Endpoint{
				Namespace: "x", Name: fmt.Sprint(e), Node: fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(t, "node")),
				Addresses: rapid.SliceOfN(address, 1, 2).Draw(t, "addresses"), Identity: identity.Of(uint8(c+1), uint16(256+e)),
			}})
		}
	}
	return in
}

// Whatever the clusters claim, what proves a packet's source stays a proof.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genInput(t)
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
	if !in.EncryptionOn && len(p.Peers) > 0 {
		t.Fatal("peers without encryption")
	}
}

func checkAddresses(t *rapid.T, in Input, p Plan) {
	own := map[netip.Addr]bool{}
	for _, n := range in.Nodes {
		if n.Cluster == in.Cluster && n.Node.Name == in.Self {
			for _, a := range n.Node.Addresses {
				own[netip.MustParseAddr(a)] = true
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
		if far := e.ClusterID != 2; far && (!e.Tunnel || !e.RequireTunnel) {
			t.Fatalf("%s of another cluster passes outside of the tunnel: %+v", addr, e)
		}
		if in.Strict && e.Tunnel && !e.Node && !e.RequireTunnel {
			t.Fatalf("%s may be sent in plain in strict mode: %+v", addr, e)
		}
		if e.Identity != identity.RemoteNode && identity.ClusterOf(e.Identity) != e.ClusterID {
			t.Fatalf("%s: identity %d of cluster %d", addr, e.Identity, e.ClusterID)
		}
		if e.Peer != 0 && uint32(e.ClusterID) != in.Clusters[peers[e.Peer].Cluster].Id {
			t.Fatalf("%s of cluster %d lies behind peer %s", addr, e.ClusterID, PeerKey(peers[e.Peer].Cluster, peers[e.Peer].Node))
		}
	}
}

func checkRanges(t *rapid.T, in Input, p Plan) {
	for a, ea := range p.CIDRs {
		if ea.Identity != 0 || ea.Tunnel == ea.Service {
			t.Fatalf("range %s: %+v", a, ea)
		}
		for b := range p.CIDRs {
			if a != b && a.Overlaps(b) {
				t.Fatalf("ranges %s and %s overlap", a, b)
			}
		}
		for _, text := range in.Clusters[in.Cluster].PodCidrs {
			if ea.Tunnel && a.Overlaps(netip.MustParsePrefix(text)) {
				t.Fatalf("another cluster's %s overlaps our %s", a, text)
			}
		}
	}
	routes := map[netip.Prefix]bool{}
	for _, r := range p.Routes {
		if routes[r.Dst] {
			t.Fatalf("two routes to %s", r.Dst)
		}
		routes[r.Dst] = true
		if r.Via == ViaTunnel && !in.EncryptionOn {
			t.Fatalf("a route into a tunnel that is not there: %+v", r)
		}
	}
	for prefix, e := range p.CIDRs {
		if e.Tunnel && routes[prefix] != in.EncryptionOn {
			t.Fatalf("another cluster's range %s has no route, or one into nowhere", prefix)
		}
	}
}

func TestPlanIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genInput(t)
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

// BenchmarkCompute plans the mesh of the scale test: 250 clusters, 25,000 nodes, 250,000 endpoints.
func BenchmarkCompute(b *testing.B) {
	for _, clusters := range []int{25, 250} {
		in := Input{Self: "n0", Cluster: "c0", EncryptionOn: true, ScopeAll: true, Clusters: map[string]*recordv1.Cluster{}}
		for c := range clusters {
			name := fmt.Sprintf("c%d", c)
			in.Clusters[name] = &recordv1.Cluster{Name: name, Id: uint32(c + 1), PodCidrs: []string{fmt.Sprintf("10.%d.0.0/16", c)}}
			for n := range 100 {
				nodeName := fmt.Sprintf("n%d", n)
				in.Nodes = append(in.Nodes, node(name, nodeName, fmt.Sprintf("172.%d.%d.1", c, n), fmt.Sprintf("10.%d.%d.0/24", c, n)))
				in.Nodes[len(in.Nodes)-1].Node.PodsInPodCidrs = n%2 == 0
				for e := range 10 {
					in.Endpoints = append(in.Endpoints, endpoint(name, fmt.Sprintf("p%d-%d", n, e), nodeName, fmt.Sprintf("10.%d.%d.%d", c, n, e+1), identity.Of(uint8(c+1), uint16(256+e))))
				}
			}
		}
		b.Run(fmt.Sprintf("%d-endpoints", len(in.Endpoints)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p := Compute(in); len(p.Problems) > 0 || len(p.Peers) != clusters*100-1 {
					b.Fatal(p.Problems, len(p.Peers))
				}
			}
		})
	}
}
