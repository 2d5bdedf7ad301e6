// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// scaleWorld is the mesh of the scale test: 250 clusters, 25,000 nodes, 250,000 endpoints. The CNI of every other node
// hands out addresses as it likes.
func scaleWorld(clusters int) *world {
	w := emptyWorld(false)
	for c := range clusters {
		name := fmt.Sprintf("c%d", c)
		w.clusters[name] = &record.Cluster{
			Name: name, ID: uint8(c + 1), PodCIDRs: []netip.Prefix{netip.PrefixFrom(scaleAddr(10, c, 0, 0), 16)}, Encryption: wireGuard,
		}
		for n := range 100 {
			node := fmt.Sprintf("n%d", n)
			rec := &record.Node{
				Name: node, Addresses: []netip.Addr{scaleAddr(172, c, n, 1)}, PodCIDRs: []netip.Prefix{netip.PrefixFrom(scaleAddr(10, c, n, 0), 24)},
				PodsInPodCIDRs: n%2 == 0, PublicKey: key(name + "/" + node), Port: 51871,
			}
			w.nodes[[2]string{name, node}] = rec
			for e := range 10 {
				pod := fmt.Sprintf("p%d-%d", n, e)
				w.endpoints[[3]string{name, "shop", pod}] = &record.Endpoint{
					Namespace: "shop", Name: pod, Node: rec.Name, Addresses: []netip.Addr{scaleAddr(10, c, n, e+1)}, Identity: identity.Of(uint8(c+1), uint16(256+e)),
				}
			}
		}
	}
	return w
}

func scaleAddr(a, b, c, d int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(d)})
}

func scaleConfig() Config { return Config{Self: "n0", Cluster: "c0"} }

// BenchmarkCompute plans the whole world, as every change did before there was a Planner.
func BenchmarkCompute(b *testing.B) {
	in := scaleWorld(250).input()
	in.Self, in.Cluster = "n0", "c0"
	b.ReportAllocs()
	for b.Loop() {
		if p := Compute(in); len(p.Problems) > 0 || len(p.Peers) != len(in.Nodes)-1 {
			b.Fatal(p.Problems, len(p.Peers))
		}
	}
}

// BenchmarkPlannerFull is the first step of a planner.
func BenchmarkPlannerFull(b *testing.B) {
	in := scaleWorld(250).input()
	// As an agent's tables give them.
	slices.SortFunc(in.Nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name)) })
	slices.SortFunc(in.Endpoints, func(a, b Endpoint) int { return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name)) })
	b.ReportAllocs()
	for b.Loop() {
		p := NewPlanner(scaleConfig())
		for name, c := range in.Clusters {
			p.SetCluster(name, c)
		}
		for _, n := range in.Nodes {
			p.SetNode(n.Cluster, n.Name, n.Node)
		}
		for _, e := range in.Endpoints {
			p.SetEndpoint(e.Cluster, e.Namespace, e.Name, e.Endpoint)
		}
		if d := p.Step(); len(d.Peers) != len(in.Nodes)-1 {
			b.Fatal(len(d.Peers))
		}
	}
}

// BenchmarkPlannerMemory is what a planner holds for each node and each endpoint beside their records, where the CNI hands
// out addresses from the nodes' blocks and where it doesn't.
func BenchmarkPlannerMemory(b *testing.B) {
	for _, blocks := range []bool{true, false} {
		b.Run(map[bool]string{true: "in blocks", false: "by address"}[blocks], func(b *testing.B) {
			w := scaleWorld(250)
			for _, n := range w.nodes {
				n.PodsInPodCIDRs = blocks
			}
			endpoints := w.endpoints
			var perNode, perEndpoint float64
			for b.Loop() {
				w.endpoints = nil
				p := NewPlanner(scaleConfig())
				before := heap()
				w.setAll(p)
				p.Step()
				with := heap()
				perNode = (float64(with) - float64(before)) / float64(len(w.nodes))
				w.endpoints = endpoints
				for k, e := range endpoints {
					p.SetEndpoint(k[0], k[1], k[2], e)
				}
				p.Step()
				perEndpoint = (float64(heap()) - float64(with)) / float64(len(endpoints))
				runtime.KeepAlive(p)
			}
			b.ReportMetric(perNode, "B/node")
			b.ReportMetric(perEndpoint, "B/endpoint")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkPlannerChange changes one thing at a time in the whole world.
func BenchmarkPlannerChange(b *testing.B) {
	w := scaleWorld(250)
	p := NewPlanner(scaleConfig())
	w.setAll(p)
	p.Step()
	// Each change is made and taken back, so that the world stays as large as it is.
	b.Run("endpoint/identity", func(b *testing.B) {
		rec := *w.endpoints[[3]string{"c7", "shop", "p10-3"}]
		run(b, p, 1, func(i int) {
			next := rec
			next.Identity += uint32(i%2 + 1)
			p.SetEndpoint("c7", "shop", "p10-3", &next)
		})
	})
	for _, node := range []string{"n10", "n11"} {
		b.Run(map[string]string{"n10": "endpoint/in a block", "n11": "endpoint/by its address"}[node], func(b *testing.B) {
			rec := &record.Endpoint{Namespace: "shop", Name: "new", Node: node, Addresses: []netip.Addr{scaleAddr(10, 7, 10+int(node[2]-'0'), 99)}, Identity: identity.Of(8, 300)}
			p.SetEndpoint("c7", "shop", "new", nil)
			p.Step()
			run(b, p, 1, func(i int) { p.SetEndpoint("c7", "shop", "new", map[bool]*record.Endpoint{true: rec}[i%2 == 0]) })
		})
	}
	b.Run("endpoint/by its address, beside 5,000", func(b *testing.B) {
		for i := range 5000 {
			name := fmt.Sprint("crowd", i)
			p.SetEndpoint("c7", "shop", name, &record.Endpoint{Namespace: "shop", Name: name, Node: "n11", Addresses: []netip.Addr{scaleAddr(10, 7, 200+i/250, i%250)}, Identity: identity.Of(8, 300)})
		}
		rec := &record.Endpoint{Namespace: "shop", Name: "new", Node: "n11", Addresses: []netip.Addr{scaleAddr(10, 7, 21, 99)}, Identity: identity.Of(8, 300)}
		p.SetEndpoint("c7", "shop", "new", nil)
		p.Step()
		run(b, p, 1, func(i int) { p.SetEndpoint("c7", "shop", "new", map[bool]*record.Endpoint{true: rec}[i%2 == 0]) })
		for i := range 5000 {
			p.SetEndpoint("c7", "shop", fmt.Sprint("crowd", i), nil)
		}
		p.Step()
	})
	b.Run("node/key", func(b *testing.B) {
		rec := *w.nodes[[2]string{"c7", "n10"}]
		run(b, p, 0, func(i int) {
			next := rec
			next.PublicKey = key(fmt.Sprint("other", i%2))
			p.SetNode("c7", "n10", &next)
		})
	})
	b.Run("node/leaves and joins", func(b *testing.B) {
		rec := w.nodes[[2]string{"c7", "n11"}]
		run(b, p, 0, func(i int) { p.SetNode("c7", "n11", map[bool]*record.Node{false: rec}[i%2 == 0]) })
	})
	b.Run("cluster/labels", func(b *testing.B) {
		run(b, p, -1, func(i int) {
			next := *w.clusters["c7"]
			next.Labels = map[string]string{"i": fmt.Sprint(i % 2)}
			p.SetCluster("c7", &next)
		})
	})
	b.Run("cluster/range", func(b *testing.B) {
		run(b, p, 0, func(i int) {
			next := *w.clusters["c7"]
			next.PodCIDRs = append([]netip.Prefix{}, next.PodCIDRs...)
			if i%2 == 0 {
				next.PodCIDRs = append(next.PodCIDRs, netip.MustParsePrefix("10.254.0.0/16"))
			}
			p.SetCluster("c7", &next)
		})
	})
}

// run changes and steps. It wants a number of addresses to change: -1 for none, 0 for any.
func run(b *testing.B, p *Planner, addresses int, change func(i int)) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		change(i)
		if d := p.Step(); addresses < 0 && !d.Empty() || addresses > 0 && len(d.Addresses) != addresses {
			b.Fatalf("%+v", d)
		}
	}
}
