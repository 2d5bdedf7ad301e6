// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// key makes a WireGuard public key out of a name.
func key(name string) (k record.PublicKey) {
	copy(k[:], name)
	return k
}

func node(cluster, name, address, podCIDR string) Node {
	return Node{cluster, &record.Node{
		Name: name, Addresses: addrs(address), PodCIDRs: prefixes(podCIDR), PodsInPodCIDRs: true,
		PublicKey: key(cluster + "/" + name), Port: 51871,
	}}
}

func endpoint(cluster, name, node, address string, id uint32) Endpoint {
	return Endpoint{cluster, &record.Endpoint{Namespace: "shop", Name: name, Node: node, Addresses: addrs(address), Identity: id}}
}

// wireGuard is encryption of all traffic, as clusters have it by default.
var wireGuard = record.Encryption{On: true, ScopeAll: true}

// twoClusters is seen from node e1 of east. The CNI of west's second node hands out addresses as it likes.
func twoClusters() Input {
	in := Input{
		Self: "e1", Cluster: "east",
		Clusters: map[string]*record.Cluster{
			"east": {Name: "east", ID: 1, PodCIDRs: prefixes("10.1.0.0/16"), ServiceCIDRs: prefixes("10.96.0.0/16"), Encryption: wireGuard},
			"west": {Name: "west", ID: 2, PodCIDRs: prefixes("10.2.0.0/16"), ServiceCIDRs: prefixes("10.96.0.0/16")},
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
	in.Nodes[0].PodsInPodCIDRs = false
	return in
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, addr(text))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, prefix(text))
	}
	return out
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
		addr("10.1.2.0"):   {Identity: identity.RemoteNode, ClusterID: 1, Peer: 1, Flags: NodeAddress},
		addr("10.1.2.1"):   {Identity: identity.RemoteNode, ClusterID: 1, Peer: 1, Flags: NodeAddress},
		addr("10.1.2.5"):   {Identity: 1<<16 | 257, ClusterID: 1, Peer: 1, Flags: Tunnel},
		addr("10.2.1.5"):   {Identity: 2<<16 | 256, ClusterID: 2, Peer: 2, Flags: Tunnel | RequireTunnel},
		addr("10.2.77.5"):  {Identity: 2<<16 | 257, ClusterID: 2, Peer: 3, Flags: Tunnel | RequireTunnel},
		addr("192.0.2.12"): {Identity: identity.RemoteNode, ClusterID: 1, Peer: 1, Flags: NodeAddress},
		addr("192.0.2.21"): {Identity: identity.RemoteNode, ClusterID: 2, Peer: 2, Flags: NodeAddress | Tunnel | RequireTunnel},
		addr("192.0.2.22"): {Identity: identity.RemoteNode, ClusterID: 2, Peer: 3, Flags: NodeAddress | Tunnel | RequireTunnel},
	}
	if !maps.Equal(p.IPCache, wantCache) {
		t.Errorf("ipcache: %+v\nwant %+v", p.IPCache, wantCache)
	}

	wantCIDRs := map[netip.Prefix]IPCacheEntry{
		prefix("10.1.0.0/16"):  {ClusterID: 1},
		prefix("10.2.0.0/16"):  {ClusterID: 2, Flags: Tunnel | RequireTunnel},
		prefix("10.96.0.0/16"): {ClusterID: 1, Flags: ServiceRange},
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
			in.Clusters["east"].Encryption, in.OwnCNI = record.Encryption{On: tt.on, ScopeAll: tt.all, Strict: tt.strict}, true
			if tt.noKey {
				in.Nodes[1].PublicKey = record.PublicKey{}
			}
			p := Compute(in)
			if e := p.IPCache[own]; e.Flags.Has(Tunnel) != tt.tunnel || e.Flags.Has(RequireTunnel) != tt.require {
				t.Errorf("own cluster's pod: %+v", e)
			}
			if e := p.IPCache[far]; !e.Flags.Has(Tunnel | RequireTunnel) {
				t.Errorf("other cluster's pod: %+v", e)
			}
			if e := p.IPCache[addr("10.1.1.5")]; e.Flags != 0 {
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

// Each mistake is among the problems, and never gives anybody somebody else's addresses.
func TestProblems(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Input)
		want   string
		check  func(*testing.T, Plan)
	}{
		{"this node is not known", func(in *Input) { in.Self = "e9" }, "this node (e9) has no record", nil},
		{"no key", func(in *Input) { in.Nodes[3].PublicKey = record.PublicKey{} }, "", func(t *testing.T, p Plan) {
			if e := p.IPCache[addr("10.2.1.5")]; !e.Flags.Has(Tunnel) || e.Peer != 0 || len(p.Peers) != 2 {
				t.Errorf("%+v, peers %v", e, p.Peers)
			}
		}},
		{"no port", func(in *Input) { in.Nodes[3].Port = 0 }, "port is not set", nil},
		{"no address", func(in *Input) { in.Nodes[3].Addresses = nil }, "has no address", nil},
		{"same key twice", func(in *Input) { in.Nodes[0].PublicKey = in.Nodes[3].PublicKey },
			"node west/w2 is not reachable: node west/w1 has the same", nil},
		{"a node claims another's pods", func(in *Input) { in.Nodes[3].PodCIDRs = prefixes("10.2.0.0/16") },
			"nodes west/w1 and west/w2 both claim 10.2.77.5/32; west/w1 keeps it", nil},
		{"another cluster's node claims our node", func(in *Input) { in.Nodes[3].Addresses = addrs("192.0.2.12") },
			"nodes east/e2 and west/w1 both claim 192.0.2.12/32; east/e2 keeps it", func(t *testing.T, p Plan) {
				if e := p.IPCache[addr("192.0.2.12")]; e.ClusterID != 1 || e.Flags.Has(Tunnel) {
					t.Errorf("%+v", e)
				}
			}},
		{"another cluster's node claims this node", func(in *Input) { in.Nodes[3].Addresses = addrs("192.0.2.11") },
			"an address of this node", func(t *testing.T, p Plan) {
				if e, ok := p.IPCache[addr("192.0.2.11")]; ok {
					t.Errorf("%+v", e)
				}
			}},
		{"a node's pod CIDR is not its cluster's", func(in *Input) { in.Nodes[3].PodCIDRs = prefixes("10.1.1.0/24") },
			"10.1.1.0/24 is not within the pod CIDRs of cluster west", func(t *testing.T, p Plan) {
				for _, peer := range p.Peers {
					if slices.Contains(peer.AllowedIPs, prefix("10.1.1.0/24")) {
						t.Errorf("%+v", peer)
					}
				}
			}},
		{"another cluster claims our pods", func(in *Input) { in.Clusters["west"].PodCIDRs = prefixes("10.0.0.0/8") },
			"cluster west: pod CIDR 10.0.0.0/8 overlaps with the", func(t *testing.T, p Plan) {
				if _, ok := p.IPCache[addr("10.2.1.5")]; ok || len(p.Routes) > 0 {
					t.Errorf("west got %v, %v", p.IPCache, p.Routes)
				}
			}},
		{"another cluster claims our services", func(in *Input) { in.Clusters["west"].PodCIDRs = prefixes("10.96.5.0/24") },
			"overlaps with the service CIDRs of cluster east", nil},
		{"endpoint outside of its cluster", func(in *Input) { in.Endpoints[0].Addresses = addrs("10.1.1.5") },
			"cluster west: endpoints outside of its pod CIDRs are left out (1)", func(t *testing.T, p Plan) {
				if e := p.IPCache[addr("10.1.1.5")]; e.Identity != 1<<16|256 {
					t.Errorf("%+v", e)
				}
			}},
		{"two pods, one address", func(in *Input) { in.Endpoints[3].Addresses = addrs("10.1.1.5") },
			"pod east/shop/there claims 10.1.1.5, which somebody else has", nil},
		{"cluster without record", func(in *Input) { delete(in.Clusters, "west") }, "nodes of cluster west are left out: its cluster record is missing", func(t *testing.T, p Plan) {
			if len(p.Peers) != 1 || len(p.IPCache) != 5 {
				t.Errorf("peers %v, ipcache %v", p.Peers, p.IPCache)
			}
		}},
		{"cluster without an id", func(in *Input) { in.Clusters["west"].ID = 0 }, "has no valid id", nil},
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
	in.Endpoints[0].Addresses = addrs("10.2.200.1")
	p := Compute(in)
	if want := []netip.Prefix{prefix("10.2.1.0/24"), prefix("10.2.200.1/32"), prefix("192.0.2.21/32")}; !reflect.DeepEqual(p.Peers[1].AllowedIPs, want) {
		t.Errorf("got %v, want %v", p.Peers[1].AllowedIPs, want)
	}
}

// A node of ours may have a pod CIDR that our cluster's record forgot: nobody else gets it all the same.
func TestOwnNodesRangesAreOurs(t *testing.T) {
	in := twoClusters()
	in.Clusters["east"].PodCIDRs = nil
	in.Clusters["west"].PodCIDRs = prefixes("10.1.2.0/24", "10.2.0.0/16")
	p := Compute(in)
	if e := p.CIDRs[prefix("10.1.2.0/24")]; e != (IPCacheEntry{ClusterID: 1}) {
		t.Errorf("west got the pods of node e2: %v", p.CIDRs)
	}
	if text := strings.Join(p.Problems, "\n"); !strings.Contains(text, "cluster west: pod CIDR 10.1.2.0/24 overlaps with the pod CIDRs of cluster east") {
		t.Errorf("problems: %q", p.Problems)
	}
}

// A pod that reports an address out of another node's block doesn't take the block with it: its own address is what is
// refused.
func TestAStrayPodTakesNoBlock(t *testing.T) {
	in := twoClusters()
	in.Nodes[0].PodsInPodCIDRs = true // w2
	in.Endpoints = append(in.Endpoints, endpoint("west", "stray", "w1", "10.2.2.9", 2<<16|300))
	p := Compute(in)
	if want := prefixes("10.2.2.0/24", "10.2.77.5/32", "192.0.2.22/32"); !slices.Equal(p.Peers[2].AllowedIPs, want) {
		t.Errorf("w2 has %v, want %v", p.Peers[2].AllowedIPs, want)
	}
	if want := []string{"nodes west/w2 and west/w1 both claim 10.2.2.9/32; west/w2 keeps it"}; !slices.Equal(p.Problems, want) {
		t.Errorf("problems %q, want %q", p.Problems, want)
	}
}

// An address of our own cluster that nobody is known to have is never the world's. It is dropped where most pods have addresses
// out of their nodes' blocks: what other nodes may send from is known there.
func TestOwnRanges(t *testing.T) {
	own, gateway := prefix("10.1.0.0/16"), addr("10.1.2.1")
	tests := []struct {
		name            string
		change          func(*Input)
		closed, gateway bool
	}{
		{"as most clusters are", func(*Input) {}, true, true},
		{"the CNI hands out addresses as it likes", func(in *Input) { stray(in, 3) }, false, false},
		{"one pod is elsewhere", func(in *Input) { stray(in, 1) }, true, true},
		{"strict, and the CNI hands out addresses as it likes", func(in *Input) {
			stray(in, 3)
			in.Clusters["east"].Encryption.Strict = true
		}, true, true},
		{"strict says nothing about this cluster", func(in *Input) {
			stray(in, 3)
			in.Clusters["east"].Encryption = record.Encryption{On: true, Strict: true}
		}, false, false},
		{"no pods are known", func(in *Input) { in.Endpoints = nil }, false, false},
		{"our own CNI's nodes use no such addresses", func(in *Input) { in.OwnCNI, in.Endpoints = true, nil }, true, false},
		{"a pod has the address", func(in *Input) {
			in.Endpoints = append(in.Endpoints, endpoint("east", "first", "e2", "10.1.2.1", 1<<16|300))
		}, true, false},
		{"this node's block has the address", func(in *Input) { in.Nodes[2].PodCIDRs = prefixes("10.1.0.0/20") }, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := twoClusters()
			tt.change(&in)
			p := Compute(in)
			want := IPCacheEntry{ClusterID: 1, Flags: Unvouched}
			if tt.closed {
				want.Flags = 0
			}
			if e := p.CIDRs[own]; e != want {
				t.Errorf("range %+v, want %+v", e, want)
			}
			if e := p.IPCache[gateway]; e.Flags.Has(NodeAddress) != tt.gateway {
				t.Errorf("gateway %+v, want one %v", e, tt.gateway)
			}
		})
	}
}

// stray adds pods to our cluster that have addresses out of no block.
func stray(in *Input, n int) {
	for i := range n {
		in.Endpoints = append(in.Endpoints, endpoint("east", fmt.Sprint("stray", i), "e2", fmt.Sprintf("10.1.99.%d", i+1), 1<<16|300))
	}
}
