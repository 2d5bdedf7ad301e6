// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// key makes a valid WireGuard public key out of a name.
func key(name string) string {
	raw := make([]byte, 32)
	copy(raw, name)
	return base64.StdEncoding.EncodeToString(raw)
}

func node(cluster, name, addr, podCIDR string) Node {
	return Node{cluster, &recordv1.Node{
		Name: name, Addresses: []string{addr}, PodCidrs: []string{podCIDR}, PodsInPodCidrs: true,
		WireguardPublicKey: key(cluster + "/" + name), WireguardPort: 51871,
	}}
}

func endpoint(cluster, name, node, addr string, id uint32) Endpoint {
	return Endpoint{cluster, &recordv1.Endpoint{Namespace: "shop", Name: name, Node: node, Addresses: []string{addr}, Identity: id}}
}

// twoClusters is seen from node e1 of east. The CNI of west's second node hands out addresses as it likes.
func twoClusters() Input {
	in := Input{
		Self: "e1", Cluster: "east", EncryptionOn: true, ScopeAll: true,
		Clusters: map[string]*recordv1.Cluster{
			"east": {Name: "east", Id: 1, PodCidrs: []string{"10.1.0.0/16"}, ServiceCidrs: []string{"10.96.0.0/16"}},
			"west": {Name: "west", Id: 2, PodCidrs: []string{"10.2.0.0/16"}, ServiceCidrs: []string{"10.96.0.0/16"}},
		},
		Nodes: []Node{
			node("west", "w2", "192.0.2.22", "10.2.2.0/24"), node("east", "e2", "192.0.2.12", "10.1.2.0/24"),
			node("east", "e1", "192.0.2.11", "10.1.1.0/24"), node("west", "w1", "192.0.2.21", "10.2.1.0/24"),
		},
		Endpoints: []Endpoint{
			endpoint("west", "web", "w1", "10.2.1.5", 2<<16|256), endpoint("west", "db", "w2", "10.2.77.5", 2<<16|257),
			endpoint("east", "here", "e1", "10.1.1.5", 1<<16|256), endpoint("east", "there", "e2", "10.1.2.5", 1<<16|257),
		},
	}
	in.Nodes[0].Node.PodsInPodCidrs = false
	return in
}

func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func TestTwoClusters(t *testing.T) {
	p := Compute(twoClusters())
	if len(p.Problems) > 0 {
		t.Errorf("problems: %q", p.Problems)
	}

	var peers []string
	for _, peer := range p.Peers {
		peers = append(peers, fmt.Sprintf("%d %s/%s %s %v", peer.Index, peer.Cluster, peer.Node, peer.Endpoint, peer.AllowedIPs))
	}
	wantPeers := []string{
		"1 east/e2 192.0.2.12:51871 [10.1.2.0/24 192.0.2.12/32]",
		"2 west/w1 192.0.2.21:51871 [10.2.1.0/24 192.0.2.21/32]",
		"3 west/w2 192.0.2.22:51871 [10.2.77.5/32 192.0.2.22/32]",
	}
	if !slices.Equal(peers, wantPeers) {
		t.Errorf("peers:\n%s\nwant\n%s", strings.Join(peers, "\n"), strings.Join(wantPeers, "\n"))
	}

	wantCache := map[netip.Addr]IPCacheEntry{
		addr("10.1.1.5"):   {Identity: 1<<16 | 256, ClusterID: 1},
		addr("10.1.2.5"):   {Identity: 1<<16 | 257, ClusterID: 1, Peer: 1, Tunnel: true},
		addr("10.2.1.5"):   {Identity: 2<<16 | 256, ClusterID: 2, Peer: 2, Tunnel: true, RequireTunnel: true},
		addr("10.2.77.5"):  {Identity: 2<<16 | 257, ClusterID: 2, Peer: 3, Tunnel: true, RequireTunnel: true},
		addr("192.0.2.12"): {Identity: identity.RemoteNode, ClusterID: 1, Peer: 1, Node: true},
		addr("192.0.2.21"): {Identity: identity.RemoteNode, ClusterID: 2, Peer: 2, Node: true, Tunnel: true, RequireTunnel: true},
		addr("192.0.2.22"): {Identity: identity.RemoteNode, ClusterID: 2, Peer: 3, Node: true, Tunnel: true, RequireTunnel: true},
	}
	if !maps.Equal(p.IPCache, wantCache) {
		t.Errorf("ipcache: %+v\nwant %+v", p.IPCache, wantCache)
	}

	wantCIDRs := map[netip.Prefix]IPCacheEntry{
		prefix("10.2.0.0/16"):  {ClusterID: 2, Tunnel: true, RequireTunnel: true},
		prefix("10.96.0.0/16"): {ClusterID: 1, Service: true},
	}
	if !maps.Equal(p.CIDRs, wantCIDRs) {
		t.Errorf("cidrs: %+v\nwant %+v", p.CIDRs, wantCIDRs)
	}
	wantRoutes := []Route{{Dst: prefix("10.2.0.0/16"), Via: ViaTunnel, Src: addr("192.0.2.11")}}
	if !slices.Equal(p.Routes, wantRoutes) {
		t.Errorf("routes: %+v\nwant %+v", p.Routes, wantRoutes)
	}
}

// What the encryption settings mean for another node of the own cluster, and for the other cluster.
func TestEncryptionSettings(t *testing.T) {
	own, far := addr("10.1.2.5"), addr("10.2.1.5")
	tests := []struct {
		name                string
		on, all, strict     bool
		noKey               bool // e2 has never published one
		tunnel, require     bool // of the own cluster's pod
		peers               int
		viaTunnel, withGate int // routes, with our own CNI
	}{
		{"all", true, true, false, false, true, false, 3, 2, 0},
		{"all, strict", true, true, true, false, true, true, 3, 2, 0},
		{"between clusters only", true, false, false, false, false, false, 3, 1, 1},
		{"between clusters only, strict says nothing about plaintext here", true, false, true, false, false, false, 3, 1, 1},
		{"off", false, true, true, false, false, false, 0, 0, 1},
		{"all, the other node has no agent", true, true, false, true, false, false, 2, 1, 1},
		{"all, strict, the other node has no agent", true, true, true, true, true, true, 2, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := twoClusters()
			in.EncryptionOn, in.ScopeAll, in.Strict, in.OwnCNI = tt.on, tt.all, tt.strict, true
			if tt.noKey {
				in.Nodes[1].Node.WireguardPublicKey = ""
			}
			p := Compute(in)
			if e := p.IPCache[own]; e.Tunnel != tt.tunnel || e.RequireTunnel != tt.require {
				t.Errorf("own cluster's pod: %+v", e)
			}
			if e := p.IPCache[far]; !e.Tunnel || !e.RequireTunnel {
				t.Errorf("other cluster's pod: %+v", e)
			}
			if e := p.IPCache[addr("10.1.1.5")]; e.Tunnel || e.RequireTunnel {
				t.Errorf("pod of this node: %+v", e)
			}
			if len(p.Peers) != tt.peers {
				t.Errorf("%d peers, want %d", len(p.Peers), tt.peers)
			}
			routes := map[Via]int{}
			for _, r := range p.Routes {
				routes[r.Via]++
				if (r.Via == ViaGateway) != (r.Gateway == addr("192.0.2.12")) {
					t.Errorf("route %+v", r)
				}
			}
			if routes[ViaTunnel] != tt.viaTunnel || routes[ViaGateway] != tt.withGate {
				t.Errorf("routes: %+v", p.Routes)
			}
			if said := slices.ContainsFunc(p.Problems, func(s string) bool { return strings.Contains(s, "encryption is off") }); said == tt.on {
				t.Errorf("problems: %q", p.Problems)
			}
		})
	}
}

// Each mistake is told, and never gives anybody somebody else's addresses.
func TestProblems(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Input)
		want   string
		check  func(*testing.T, Plan)
	}{
		{"this node is not known", func(in *Input) { in.Self = "e9" }, "this node (e9) has no record", nil},
		{"no key", func(in *Input) { in.Nodes[3].Node.WireguardPublicKey = "" }, "", func(t *testing.T, p Plan) {
			if e := p.IPCache[addr("10.2.1.5")]; !e.Tunnel || e.Peer != 0 || len(p.Peers) != 2 {
				t.Errorf("%+v, peers %v", e, p.Peers)
			}
		}},
		{"bad key", func(in *Input) { in.Nodes[3].Node.WireguardPublicKey = "abc" }, "not 32 bytes in base64", nil},
		{"no port", func(in *Input) { in.Nodes[3].Node.WireguardPort = 0 }, "port is not set", nil},
		{"no address", func(in *Input) { in.Nodes[3].Node.Addresses = nil }, "has no address", nil},
		{"bad address", func(in *Input) { in.Nodes[3].Node.Addresses = []string{"w1.example.com"} }, `"w1.example.com" is not an IP address`, nil},
		{"bad pod CIDR", func(in *Input) { in.Nodes[3].Node.PodCidrs = []string{"10.2.1.0"} }, `"10.2.1.0" is not a CIDR`, nil},
		{"same key twice", func(in *Input) { in.Nodes[0].Node.WireguardPublicKey = in.Nodes[3].Node.WireguardPublicKey },
			"node west/w2 is not reachable: node west/w1 has the same", nil},
		{"node twice", func(in *Input) { in.Nodes = append(in.Nodes, in.Nodes[0]) }, "two records", nil},
		{"a node claims another's pods", func(in *Input) { in.Nodes[3].Node.PodCidrs = []string{"10.2.0.0/16"} },
			"nodes west/w1 and west/w2 both claim 10.2.77.5/32; west/w1 keeps it", nil},
		{"another cluster's node claims our node", func(in *Input) { in.Nodes[3].Node.Addresses = []string{"192.0.2.12"} },
			"nodes east/e2 and west/w1 both claim 192.0.2.12/32; east/e2 keeps it", func(t *testing.T, p Plan) {
				if e := p.IPCache[addr("192.0.2.12")]; e.ClusterID != 1 || e.Tunnel {
					t.Errorf("%+v", e)
				}
			}},
		{"another cluster's node claims this node", func(in *Input) { in.Nodes[3].Node.Addresses = []string{"192.0.2.11"} },
			"an address of this node", func(t *testing.T, p Plan) {
				if e, ok := p.IPCache[addr("192.0.2.11")]; ok {
					t.Errorf("%+v", e)
				}
			}},
		{"a node's pod CIDR is not its cluster's", func(in *Input) { in.Nodes[3].Node.PodCidrs = []string{"10.1.1.0/24"} },
			"10.1.1.0/24 is not within the pod CIDRs of cluster west", func(t *testing.T, p Plan) {
				for _, peer := range p.Peers {
					if slices.Contains(peer.AllowedIPs, prefix("10.1.1.0/24")) {
						t.Errorf("%+v", peer)
					}
				}
			}},
		{"another cluster claims our pods", func(in *Input) { in.Clusters["west"].PodCidrs = []string{"10.0.0.0/8"} },
			"cluster west: pod CIDR 10.0.0.0/8 overlaps with the", func(t *testing.T, p Plan) {
				if _, ok := p.IPCache[addr("10.2.1.5")]; ok || len(p.Routes) > 0 {
					t.Errorf("west got %v, %v", p.IPCache, p.Routes)
				}
			}},
		{"another cluster claims our services", func(in *Input) { in.Clusters["west"].PodCidrs = []string{"10.96.5.0/24"} },
			"overlaps with the service CIDRs of cluster east", nil},
		{"bad cluster CIDR", func(in *Input) { in.Clusters["west"].PodCidrs = []string{"10.2"} }, `pod CIDR "10.2" is not a CIDR`, nil},
		{"endpoint outside of its cluster", func(in *Input) { in.Endpoints[0].Endpoint.Addresses = []string{"10.1.1.5"} },
			"cluster west: endpoints outside of its pod CIDRs are left out (1)", func(t *testing.T, p Plan) {
				if e := p.IPCache[addr("10.1.1.5")]; e.Identity != 1<<16|256 {
					t.Errorf("%+v", e)
				}
			}},
		{"bad endpoint address", func(in *Input) { in.Endpoints[2].Endpoint.Addresses = []string{"x"} }, "cluster east: endpoints with an invalid address", nil},
		{"two pods, one address", func(in *Input) { in.Endpoints[3].Endpoint.Addresses = []string{"10.1.1.5"} },
			"pod east/shop/there claims 10.1.1.5, which somebody else has", nil},
		{"cluster without record", func(in *Input) { delete(in.Clusters, "west") }, "nodes of cluster west are left out: its cluster record is missing", func(t *testing.T, p Plan) {
			if len(p.Peers) != 1 || len(p.IPCache) != 3 {
				t.Errorf("peers %v, ipcache %v", p.Peers, p.IPCache)
			}
		}},
		{"cluster id too high", func(in *Input) { in.Clusters["west"].Id = 256 }, "has no valid id", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := twoClusters()
			tt.change(&in)
			p := Compute(in)
			if text := strings.Join(p.Problems, "\n"); (tt.want == "") != (text == "") || !strings.Contains(text, tt.want) {
				t.Errorf("problems: %q, want one that says %q", p.Problems, tt.want)
			}
			if tt.check != nil {
				tt.check(t, p)
			}
		})
	}
}

func TestPeersKeepTheirIndexes(t *testing.T) {
	in := twoClusters()
	in.PreviousIndexes = map[string]uint16{"west/w1": 7, "west/gone": 1, "east/e2": 7, "west/w2": 0}
	p := Compute(in)
	want := map[string]uint16{"east/e2": 7, "west/w1": 2, "west/w2": 3} // 1 was somebody's until now
	if got := p.Indexes(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	in.PreviousIndexes = want
	in.Nodes = in.Nodes[1:] // w2 leaves
	p = Compute(in)
	if want := map[string]uint16{"east/e2": 7, "west/w1": 2}; !maps.Equal(p.Indexes(), want) {
		t.Errorf("got %v, want %v", p.Indexes(), want)
	}
}

// A pod outside of its node's CIDRs is allowed by its own address.
func TestPodOutsideOfItsNodesCIDR(t *testing.T) {
	in := twoClusters()
	in.Endpoints[0].Endpoint.Addresses = []string{"10.2.200.1"}
	p := Compute(in)
	if want := []netip.Prefix{prefix("10.2.1.0/24"), prefix("10.2.200.1/32"), prefix("192.0.2.21/32")}; !reflect.DeepEqual(p.Peers[1].AllowedIPs, want) {
		t.Errorf("got %v, want %v", p.Peers[1].AllowedIPs, want)
	}
}

func TestWithPolicyCIDRs(t *testing.T) {
	p := Compute(twoClusters())
	got := WithPolicyCIDRs(p.CIDRs, map[netip.Prefix]uint32{
		prefix("0.0.0.0/0"): 1, prefix("10.0.0.0/8"): 2, // around the mesh's ranges
		prefix("10.2.0.0/16"): 3, prefix("10.2.1.0/24"): 4, prefix("10.96.0.1/32"): 5, // within
		prefix("192.0.2.0/24"): 6, prefix("2001:db8::/32"): 7, prefix("::/0"): 8,
	})
	want := map[netip.Prefix]IPCacheEntry{
		prefix("0.0.0.0/0"): {Identity: 1}, prefix("10.0.0.0/8"): {Identity: 2},
		prefix("10.2.0.0/16"):  {ClusterID: 2, Tunnel: true, RequireTunnel: true},
		prefix("10.96.0.0/16"): {ClusterID: 1, Service: true},
		prefix("192.0.2.0/24"): {Identity: 6}, prefix("2001:db8::/32"): {Identity: 7}, prefix("::/0"): {Identity: 8},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// A policy that names a node's address by a CIDR is about that node; how it is reached stays as it was.
func TestPolicyNodes(t *testing.T) {
	p := Compute(twoClusters())
	got := PolicyNodes(p.IPCache, map[netip.Prefix]uint32{
		prefix("192.0.2.0/28"): 1, prefix("192.0.2.12/32"): 2, prefix("192.0.2.21/32"): 3, prefix("10.0.0.0/8"): 4, prefix("::/0"): 5,
	})
	want := map[netip.Addr]IPCacheEntry{
		addr("192.0.2.12"): {Identity: 2, ClusterID: 1, Peer: 1, Node: true},
		addr("192.0.2.21"): {Identity: 3, ClusterID: 2, Peer: 2, Node: true, Tunnel: true, RequireTunnel: true},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if all := PolicyNodes(p.IPCache, map[netip.Prefix]uint32{prefix("0.0.0.0/0"): 9}); len(all) != 3 || all[addr("192.0.2.22")].Identity != 9 {
		t.Errorf("got %+v", all)
	}
}

// A node of ours may have a pod CIDR that our cluster's record forgot: nobody else gets it all the same.
func TestOwnNodesRangesAreOurs(t *testing.T) {
	in := twoClusters()
	in.Clusters["east"].PodCidrs = nil
	in.Clusters["west"].PodCidrs = []string{"10.1.2.0/24", "10.2.0.0/16"}
	p := Compute(in)
	if _, ok := p.CIDRs[prefix("10.1.2.0/24")]; ok {
		t.Errorf("west got the pods of node e2: %v", p.CIDRs)
	}
	if text := strings.Join(p.Problems, "\n"); !strings.Contains(text, "cluster west: pod CIDR 10.1.2.0/24 overlaps with the pod CIDRs of cluster east") {
		t.Errorf("problems: %q", p.Problems)
	}
}
