// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// world is a mesh that can be changed, seen from node n0 of cluster b.
type world struct {
	ownCNI    bool
	clusters  map[string]*record.Cluster
	nodes     map[[2]string]*record.Node
	endpoints map[[3]string]*record.Endpoint
	keyed     map[string]bool // nodes of cluster b that had a key at a step, and of which anything is known
}

// planned is called after each step.
func (w *world) planned() {
	known := map[string]bool{}
	for k, n := range w.nodes {
		if k[0] == "b" {
			known[n.Name] = true
			w.keyed[n.Name] = w.keyed[n.Name] || !n.PublicKey.IsZero()
		}
	}
	for k, e := range w.endpoints {
		if k[0] == "b" {
			known[e.Node] = true
		}
	}
	maps.DeleteFunc(w.keyed, func(name string, keyed bool) bool { return !keyed || !known[name] })
}

func (w *world) input() Input {
	in := Input{Self: "n0", Cluster: "b", OwnCNI: w.ownCNI, Clusters: w.clusters, Keyed: w.keyed}
	for k, n := range w.nodes {
		in.Nodes = append(in.Nodes, Node{k[0], n})
	}
	for k, e := range w.endpoints {
		in.Endpoints = append(in.Endpoints, Endpoint{k[0], e})
	}
	return in
}

// The universe is small, so that clusters and nodes claim each other's addresses often.
var (
	clusterNames = []string{"a", "b", "c"}
	nodeNames    = []string{"n0", "n1", "n2", "n3"}

	genOctet = rapid.IntRange(0, 3)
	genCIDR  = rapid.Custom(func(t *rapid.T) netip.Prefix {
		if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
			a := netip.MustParseAddr(fmt.Sprintf("fd00:%d:%d::", genOctet.Draw(t, "a"), genOctet.Draw(t, "b")))
			return netip.PrefixFrom(a, rapid.SampledFrom([]int{16, 32, 48, 128}).Draw(t, "bits")).Masked()
		}
		a := netip.AddrFrom4([4]byte{10, byte(genOctet.Draw(t, "a")), byte(genOctet.Draw(t, "b")), 0})
		return netip.PrefixFrom(a, rapid.SampledFrom([]int{8, 14, 16, 23, 24, 32}).Draw(t, "bits")).Masked()
	})
	genAddress = rapid.Custom(func(t *rapid.T) netip.Addr {
		a, b, c := genOctet.Draw(t, "a"), genOctet.Draw(t, "b"), genOctet.Draw(t, "c")
		if rapid.IntRange(0, 4).Draw(t, "family") == 0 {
			return netip.MustParseAddr(fmt.Sprintf("fd00:%d:%d::%d", a, b, c))
		}
		return netip.AddrFrom4([4]byte{10, byte(a), byte(b), byte(c)})
	})
)

func genCluster(t *rapid.T, id int) *record.Cluster {
	return &record.Cluster{
		ID: uint8(id), PodCIDRs: rapid.SliceOfN(genCIDR, 0, 3).Draw(t, "ranges"), ServiceCIDRs: rapid.SliceOfN(genCIDR, 0, 1).Draw(t, "services"),
		Encryption: record.Encryption{
			On: rapid.IntRange(0, 5).Draw(t, "on") > 0, ScopeAll: rapid.Bool().Draw(t, "all"), Strict: rapid.Bool().Draw(t, "strict"),
		},
	}
}

func genNode(t *rapid.T, name string) *record.Node {
	n := &record.Node{
		Name: name, Addresses: rapid.SliceOfN(genAddress, 0, 2).Draw(t, "addresses"),
		PodCIDRs: rapid.SliceOfN(genCIDR, 0, 2).Draw(t, "pod CIDRs"), PodsInPodCIDRs: rapid.Bool().Draw(t, "in"),
		Port: uint16(rapid.SampledFrom([]int{1, 1, 1, 2, 0}).Draw(t, "port")),
	}
	if rapid.IntRange(0, 3).Draw(t, "key") > 0 {
		n.PublicKey = key(fmt.Sprint(rapid.IntRange(0, 12).Draw(t, "which")))
	}
	return n
}

func genEndpoint(t *rapid.T, name string, id uint32) *record.Endpoint {
	return &record.Endpoint{
		Namespace: "x", Name: name, Node: rapid.SampledFrom(append(nodeNames, "n4")).Draw(t, "node"),
		Addresses: rapid.SliceOfN(genAddress, 1, 2).Draw(t, "addresses"), Identity: id,
	}
}

// genWorld makes a mesh in which clusters and nodes claim whatever they like, each other's addresses included.
func genWorld(t *rapid.T) *world {
	w := emptyWorld(rapid.Bool().Draw(t, "own CNI"))
	for c, cluster := range clusterNames {
		w.clusters[cluster] = genCluster(t, c+1)
		for _, name := range nodeNames[:rapid.IntRange(0, 4).Draw(t, "nodes")] {
			w.nodes[[2]string{cluster, name}] = genNode(t, name)
		}
		for e := range rapid.IntRange(0, 5).Draw(t, "endpoints") {
			name := fmt.Sprint(e)
			w.endpoints[[3]string{cluster, "x", name}] = genEndpoint(t, name, identity.Of(uint8(c+1), uint16(256+e)))
		}
	}
	return w
}

func emptyWorld(ownCNI bool) *world {
	return &world{
		ownCNI: ownCNI, clusters: map[string]*record.Cluster{}, nodes: map[[2]string]*record.Node{}, endpoints: map[[3]string]*record.Endpoint{},
		keyed: map[string]bool{},
	}
}

// change makes one random change, in the world and for the planner.
func (w *world) change(t *rapid.T, p *Planner) {
	cluster := rapid.SampledFrom(clusterNames).Draw(t, "cluster")
	removed := rapid.IntRange(0, 3).Draw(t, "remove") == 0
	switch rapid.IntRange(0, 12).Draw(t, "what") {
	case 0:
		w.setCluster(p, cluster, map[bool]*record.Cluster{false: genCluster(t, rapid.IntRange(0, 3).Draw(t, "id"))}[removed])
	case 1, 2, 3, 4:
		name := rapid.SampledFrom(nodeNames).Draw(t, "name")
		w.setNode(p, cluster, name, map[bool]*record.Node{false: w.mutateNode(t, cluster, name)}[removed])
	default:
		name := fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "name"))
		id := identity.Of(1, uint16(rapid.IntRange(256, 257).Draw(t, "identity")))
		w.setEndpoint(p, cluster, "x", name, map[bool]*record.Endpoint{false: genEndpoint(t, name, id)}[removed])
	}
}

// mutateNode makes another record for a node, or changes one thing in the record it has.
func (w *world) mutateNode(t *rapid.T, cluster, name string) *record.Node {
	n := genNode(t, name)
	old := w.nodes[[2]string{cluster, name}]
	if old == nil {
		return n
	}
	same := *old
	switch rapid.IntRange(0, 6).Draw(t, "which field") {
	case 0:
		same.PublicKey = n.PublicKey
	case 1:
		same.Port = n.Port
	case 2:
		same.Addresses = n.Addresses
	case 3:
		same.PodCIDRs = n.PodCIDRs
	case 4:
		same.PodsInPodCIDRs = n.PodsInPodCIDRs
	case 5:
		same.Zone = rapid.SampledFrom([]string{"", "z"}).Draw(t, "zone")
	default:
		return n
	}
	return &same
}

func (w *world) setCluster(p *Planner, name string, c *record.Cluster) {
	if w.clusters[name] = c; c == nil {
		delete(w.clusters, name)
	}
	p.SetCluster(name, c)
}

func (w *world) setNode(p *Planner, cluster, name string, n *record.Node) {
	k := [2]string{cluster, name}
	if w.nodes[k] = n; n == nil {
		delete(w.nodes, k)
	}
	p.SetNode(cluster, name, n)
}

func (w *world) setEndpoint(p *Planner, cluster, namespace, name string, e *record.Endpoint) {
	k := [3]string{cluster, namespace, name}
	if w.endpoints[k] = e; e == nil {
		delete(w.endpoints, k)
	}
	p.SetEndpoint(cluster, namespace, name, e)
}

// setAll gives the planner all of the world.
func (w *world) setAll(p *Planner) {
	for name, c := range w.clusters {
		p.SetCluster(name, c)
	}
	for k, n := range w.nodes {
		p.SetNode(k[0], k[1], n)
	}
	for k, e := range w.endpoints {
		p.SetEndpoint(k[0], k[1], k[2], e)
	}
}
