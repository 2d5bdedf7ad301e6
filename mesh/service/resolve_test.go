// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// svc makes a service with one port, http 80/TCP, whose pods listen on 8080.
func svc(change ...func(*record.Service)) *record.Service {
	s := &record.Service{
		Namespace: "shop", Name: "web", ClusterIPs: addrs("10.96.0.1"),
		Ports: []record.Port{{Name: "http", Protocol: record.TCP, Number: 80}},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func global(s *record.Service)    { s.Global, s.Shared = true, true }
func notShared(s *record.Service) { s.Shared = false }
func affine(a record.Affinity) func(*record.Service) {
	return func(s *record.Service) { s.Affinity = a }
}

// slice makes a slice of backends, each written as "address" (ready), "address draining" or "address down".
func slice(name string, backends ...string) *record.Slice {
	s := &record.Slice{
		Namespace: "shop", Service: "web", Name: name,
		Ports: []record.Port{{Name: "http", Protocol: record.TCP, Number: 8080}},
	}
	for _, text := range backends {
		addr, state, _ := strings.Cut(text, " ")
		s.Backends = append(s.Backends, record.Backend{
			Addr: netip.MustParseAddr(addr), Ready: state == "", Serving: state != "down", Terminating: state == "draining", Node: "n-" + addr,
		})
	}
	return s
}

func def(cluster string, s *record.Service, slices ...*record.Slice) Definition {
	return Definition{Cluster: cluster, Service: s, Slices: slices}
}

// show writes frontends for people: address:port → cluster/address:port, …
func show(r Resolution) string {
	var lines []string
	for _, f := range r.Frontends {
		var to []string
		for _, b := range f.Backends {
			to = append(to, b.Cluster+"/"+netip.AddrPortFrom(b.Addr, b.Port).String())
		}
		lines = append(lines, fmt.Sprintf("%s/%d -> %s", netip.AddrPortFrom(f.Addr, f.Port), f.Proto, strings.Join(to, " ")))
	}
	return strings.Join(lines, "\n")
}

func TestResolve(t *testing.T) {
	const local, remote = record.AffinityLocal, record.AffinityRemote
	const vip = "10.96.0.1:80/6 -> "
	east := slice("a", "10.1.0.1", "10.1.0.2")
	west := slice("b", "10.2.0.1")
	tests := []struct {
		name    string
		defs    []Definition
		want    string
		problem string
	}{
		{"nobody", nil, "", ""},
		{"no service here", []Definition{def("west", svc(global), west)}, "", ""},
		{"slices before their service", []Definition{{Cluster: "east", Slices: []*record.Slice{east}}}, "", ""},
		{"headless", []Definition{def("east", svc(func(s *record.Service) { s.Headless = true }), east)}, "", ""},
		{"local only", []Definition{def("east", svc(), east), def("west", svc(global), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", ""},
		{"global", []Definition{def("west", svc(global), west), def("east", svc(global), east)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080 west/10.2.0.1:8080", ""},
		{"global here, not there", []Definition{def("east", svc(global), east), def("west", svc(), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", ""},
		{"not shared there", []Definition{def("east", svc(global), east), def("west", svc(global, notShared), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", ""},
		{"not shared here still consumes", []Definition{def("east", svc(global, notShared), east), def("west", svc(global), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080 west/10.2.0.1:8080", ""},
		{"backends only there", []Definition{def("east", svc(global)), def("west", svc(global), west)}, vip + "west/10.2.0.1:8080", ""},
		{"no backends at all", []Definition{def("east", svc(global))}, vip, ""},

		{"affinity local", []Definition{def("east", svc(global, affine(local)), east), def("west", svc(global), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", ""},
		{"affinity local, none here", []Definition{def("east", svc(global, affine(local)), slice("a", "10.1.0.1 down")), def("west", svc(global), west)}, vip + "west/10.2.0.1:8080", ""},
		{"affinity local, draining here", []Definition{def("east", svc(global, affine(local)), slice("a", "10.1.0.1 draining")), def("west", svc(global), west)}, vip + "west/10.2.0.1:8080", ""},
		{"affinity local, all draining", []Definition{def("east", svc(global, affine(local)), slice("a", "10.1.0.1 draining")), def("west", svc(global), slice("b", "10.2.0.1 draining"))}, vip + "east/10.1.0.1:8080", ""},
		{"affinity remote", []Definition{def("east", svc(global, affine(remote)), east), def("west", svc(global), west)}, vip + "west/10.2.0.1:8080", ""},
		{"affinity remote, none there", []Definition{def("east", svc(global, affine(remote)), east), def("west", svc(global), slice("b", "10.2.0.1 down"))}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", ""},
		{"affinity of the others does not count", []Definition{def("east", svc(global), east), def("west", svc(global, affine(local)), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080 west/10.2.0.1:8080", ""},

		{"draining backends while others are ready", []Definition{def("east", svc(), slice("a", "10.1.0.1 draining", "10.1.0.2"))}, vip + "east/10.1.0.2:8080", ""},
		{"only draining backends", []Definition{def("east", svc(), slice("a", "10.1.0.1 draining", "10.1.0.2 down"))}, vip + "east/10.1.0.1:8080", ""},
		{"a backend in two slices", []Definition{def("east", svc(), slice("a", "10.1.0.1 down"), slice("b", "10.1.0.1"))}, vip + "east/10.1.0.1:8080", ""},
		{"a stolen backend", []Definition{def("east", svc(global), slice("a", "10.1.0.1")), def("west", svc(global), slice("b", "10.1.0.1"))}, vip + "east/10.1.0.1:8080", "both claim the backend 10.1.0.1:8080; east keeps it"},
		{"given twice", []Definition{def("east", svc(), east), def("east", svc(global), west)}, vip + "east/10.1.0.1:8080 east/10.1.0.2:8080", "more than once"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Resolve("east", tt.defs)
			if got := show(r); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if (tt.problem != "") != (len(r.Problems) > 0) || !strings.Contains(strings.Join(r.Problems, "\n"), tt.problem) {
				t.Errorf("problems: %q, want one that says %q", r.Problems, tt.problem)
			}
		})
	}
}

func TestFamiliesStayApart(t *testing.T) {
	s := svc(global, func(s *record.Service) {
		s.ClusterIPs = addrs("10.96.0.1", "fd00::1")
		s.AffinityTimeout = 60
	})
	r := Resolve("east", []Definition{
		def("east", s, slice("a", "10.1.0.1"), slice("b", "fd00:1::1")),
		def("west", svc(global), slice("c", "fd00:2::1")),
	})
	want := "10.96.0.1:80/6 -> east/10.1.0.1:8080\n[fd00::1]:80/6 -> east/[fd00:1::1]:8080 west/[fd00:2::1]:8080"
	if got := show(r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if f := r.Frontends[0]; f.Name != "shop/web" || f.PortName != "http" || f.AffinityTimeout != 60 {
		t.Errorf("frontend: %+v", f)
	}
}

// With an affinity too: what the other family has must not count as "some are left here".
func TestAffinityIsPerFamily(t *testing.T) {
	for affinity, want := range map[record.Affinity]string{
		record.AffinityLocal:  "10.96.0.1:80/6 -> east/10.1.0.1:8080\n[fd00::1]:80/6 -> west/[fd00:2::1]:8080",
		record.AffinityRemote: "10.96.0.1:80/6 -> east/10.1.0.1:8080\n[fd00::1]:80/6 -> west/[fd00:2::1]:8080",
	} {
		s := svc(global, affine(affinity), func(s *record.Service) { s.ClusterIPs = addrs("fd00::1", "10.96.0.1") })
		r := Resolve("east", []Definition{def("east", s, slice("a", "10.1.0.1")), def("west", svc(global), slice("b", "fd00:2::1"))})
		if got := show(r); got != want {
			t.Errorf("affinity %d: got %s\nwant %s", affinity, got, want)
		}
	}
}

// The local cluster is local wherever its name comes in the alphabet.
func TestLocalClusterIsLastByName(t *testing.T) {
	r := Resolve("west", []Definition{def("east", svc(global), slice("a", "10.1.0.1")), def("west", svc(global, affine(record.AffinityLocal)), slice("b", "10.1.0.1", "10.2.0.1"))})
	if got, want := show(r), "10.96.0.1:80/6 -> west/10.1.0.1:8080 west/10.2.0.1:8080"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "west keeps it") {
		t.Errorf("problems: %q", r.Problems)
	}
}

// Ports match by name, else by protocol and number; a cluster without the port does not serve it, and that is told.
func TestPortsOfOtherClusters(t *testing.T) {
	ports := func(p ...record.Port) func(*record.Service) {
		return func(s *record.Service) { s.Ports = p }
	}
	p := func(name string, proto record.Protocol, n uint16) record.Port {
		return record.Port{Name: name, Protocol: proto, Number: n}
	}
	backends := func(name, addr string, p ...record.Port) *record.Slice {
		s := slice(name, addr)
		s.Ports = p
		return s
	}
	r := Resolve("east", []Definition{
		def("east", svc(global, ports(p("http", record.TCP, 80), p("dns", record.UDP, 53), p("metrics", record.TCP, 9090)))),
		def("west", svc(global, ports(p("http", record.TCP, 8000), p("dns", record.TCP, 53), p("names", record.UDP, 53))),
			backends("a", "10.2.0.1", p("http", record.TCP, 8001), p("dns", record.TCP, 5300), p("names", record.UDP, 5353))),
	})
	want := "10.96.0.1:53/17 -> west/10.2.0.1:5353\n10.96.0.1:80/6 -> west/10.2.0.1:8001\n10.96.0.1:9090/6 -> "
	if got := show(r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], `cluster west has no port "metrics" (TCP/9090)`) {
		t.Errorf("problems: %q", r.Problems)
	}
}

// The order in which clusters, slices and backends are given must not matter, backends must be usable, and nobody may be
// left without one while somebody has one.
func TestResolveProperties(t *testing.T) {
	states := rapid.SampledFrom([]string{"", " draining", " down"})
	rapid.Check(t, func(t *rapid.T) {
		var defs []Definition
		usable := map[string]bool{}
		affinity := rapid.SampledFrom([]record.Affinity{record.AffinityNone, record.AffinityLocal, record.AffinityRemote}).Draw(t, "affinity")
		for c, cluster := range []string{"east", "north", "west"} {
			var list []*record.Slice
			for i := range rapid.IntRange(0, 3).Draw(t, "slices") {
				var backends []string
				for j := range rapid.IntRange(0, 3).Draw(t, "backends") {
					state := states.Draw(t, "state")
					addr := fmt.Sprintf("10.%d.%d.%d", c, i, j)
					backends = append(backends, addr+state)
					if state != " down" {
						usable[addr] = true
					}
				}
				list = append(list, slice(fmt.Sprint(i), backends...))
			}
			defs = append(defs, def(cluster, svc(global, affine(affinity)), list...))
		}
		r := Resolve("east", defs)
		if len(r.Frontends) != 1 || len(r.Problems) > 0 {
			t.Fatalf("%+v", r)
		}
		got := r.Frontends[0].Backends
		if (len(got) > 0) != (len(usable) > 0) {
			t.Fatalf("%d backends of %d usable ones", len(got), len(usable))
		}
		for _, b := range got {
			if !usable[b.Addr.String()] {
				t.Fatalf("%s is not usable", b.Addr)
			}
		}
		for i := range defs {
			defs[i].Slices = rapid.Permutation(defs[i].Slices).Draw(t, "slices' order")
			for _, s := range defs[i].Slices {
				s.Backends = rapid.Permutation(s.Backends).Draw(t, "backends' order")
			}
		}
		again := Resolve("east", rapid.Permutation(defs).Draw(t, "order"))
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("another order: %s\nwas %s", show(again), show(r))
		}
		if !slices.IsSortedFunc(got, func(a, b Backend) int { return strings.Compare(a.Cluster, b.Cluster) }) {
			t.Fatal("backends are not sorted")
		}
	})
}

func BenchmarkResolve10000Backends(b *testing.B) {
	var list []*record.Slice
	for i := range 100 {
		var backends []string
		for j := range 100 {
			backends = append(backends, fmt.Sprintf("10.%d.%d.1", i, j))
		}
		list = append(list, slice(fmt.Sprint(i), backends...))
	}
	defs := []Definition{def("east", svc(global)), def("west", svc(global), list...)}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(Resolve("east", defs).Frontends[0].Backends); n != 10_000 {
			b.Fatal(n)
		}
	}
}
