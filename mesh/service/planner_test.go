// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// kernel applies deltas as the agent does, and counts slot writes.
type kernel struct {
	frontends map[FrontendKey]Row
	slots     map[SlotKey]netip.AddrPort
	writes    int
}

func newKernel() *kernel {
	return &kernel{frontends: map[FrontendKey]Row{}, slots: map[SlotKey]netip.AddrPort{}}
}

func (k *kernel) apply(t interface{ Fatalf(string, ...any) }, d Delta) {
	k.writes = len(d.Slots)
	for key, at := range d.Slots {
		if had, ok := k.slots[key]; ok && had == at || !ok && !at.IsValid() {
			t.Fatalf("slot %+v is written as it was: %s", key, at)
		}
		if at.IsValid() {
			k.slots[key] = at
		} else {
			delete(k.slots, key)
		}
	}
	for key, row := range d.Frontends {
		if row == nil {
			delete(k.frontends, key)
		} else {
			k.frontends[key] = *row
		}
	}
}

// backends of a frontend; every slot it counts must be there.
func (k *kernel) backends(t interface{ Fatalf(string, ...any) }, row Row) []string {
	var out []string
	for slot := range row.Backends {
		at, ok := k.slots[SlotKey{row.ID, slot}]
		if !ok {
			t.Fatalf("slot %d of %+v is not there", slot, row)
		}
		out = append(out, at.String())
	}
	slices.Sort(out)
	return out
}

// remembered is what a planner of the next run is given.
func (k *kernel) remembered() (ids, proxied map[FrontendKey]uint32, all map[uint32][]netip.AddrPort) {
	ids, proxied, all = map[FrontendKey]uint32{}, map[FrontendKey]uint32{}, map[uint32][]netip.AddrPort{}
	for key, row := range k.frontends {
		if row.Proxied {
			proxied[key] = row.ID
		} else {
			ids[key] = row.ID
		}
	}
	for key := range k.slots {
		list := all[key.ID]
		for len(list) <= int(key.Slot) {
			list = append(list, netip.AddrPort{})
		}
		list[key.Slot] = k.slots[key]
		all[key.ID] = list
	}
	return ids, proxied, all
}

// mesh is what all clusters say, for the oracle.
type mesh struct {
	services map[string]map[name]*record.Service
	slices   map[sliceKey]*record.Slice
}

var clusters = []string{"east", "north", "west"}

const skipped = "skipped"

// contested is the name of a frontend that several services want and that is left to kube-proxy.
const contested = "contested"

func (m *mesh) definitions(n name) []Definition {
	var defs []Definition
	for _, c := range clusters {
		d := Definition{Cluster: c, Service: m.services[c][n]}
		for _, key := range slices.SortedFunc(maps.Keys(m.slices), func(a, b sliceKey) int {
			return slices.Compare([]string{a.cluster, a.namespace, a.name}, []string{b.cluster, b.namespace, b.name})
		}) {
			if s := m.slices[key]; key.cluster == c && key.namespace == n.namespace && s.Service == n.name {
				d.Slices = append(d.Slices, s)
			}
		}
		defs = append(defs, d)
	}
	return defs
}

// want resolves everything with the oracle. Of services that share a frontend the first by name has it.
func (m *mesh) want(local string) map[FrontendKey]Frontend {
	names := map[name]bool{}
	for _, list := range m.services {
		for n := range list {
			names[n] = true
		}
	}
	out := map[FrontendKey]Frontend{}
	for _, n := range slices.SortedFunc(maps.Keys(names), compareNames) {
		resolve := Resolve
		if n.name == skipped {
			resolve = ResolveProxied
		}
		for _, f := range resolve(local, m.definitions(n)).Frontends {
			first, taken := out[f.FrontendKey]
			switch {
			case !taken:
				out[f.FrontendKey] = f
				continue
			case first.Outside && !f.Outside:
				first = f
			}
			if first.Proxied {
				first.Name, first.Backends = contested, nil
			}
			out[f.FrontendKey] = first
		}
	}
	return out
}

func (k *kernel) check(t interface{ Fatalf(string, ...any) }, want map[FrontendKey]Frontend) {
	if len(k.frontends) != len(want) {
		t.Fatalf("%d frontends, want %d: %v", len(k.frontends), len(want), k.frontends)
	}
	counted := 0
	ids := map[uint32]bool{}
	for key, f := range want {
		row, ok := k.frontends[key]
		if !ok || row.AffinityTimeout != f.AffinityTimeout || row.Proxied != f.Proxied {
			t.Fatalf("frontend %+v is %+v, want %+v", key, row, f)
		}
		var backends []string
		for _, b := range f.Backends {
			backends = append(backends, netip.AddrPortFrom(b.Addr, b.Port).String())
		}
		slices.Sort(backends)
		if got := k.backends(t, row); !slices.Equal(got, backends) {
			t.Fatalf("frontend %+v leads to %v, want %v", key, got, backends)
		}
		if f.Name == contested {
			continue // counts no slots, though its service has some
		}
		if !ids[row.ID] {
			counted += int(row.Backends)
		}
		ids[row.ID] = true
	}
	// A service that lost its frontend to another keeps its slots; all others are counted.
	for key := range k.slots {
		if ids[key.ID] {
			counted--
		}
	}
	if counted != 0 {
		t.Fatalf("%d slots are counted and missing, or there and not counted", counted)
	}
}

func plannerOf(k *kernel, m *mesh) *Planner {
	ids, proxied, slots := k.remembered()
	p := NewPlanner(Config{Cluster: "east", Proxied: func(_, n string) bool { return n == skipped }, IDs: ids, ProxiedIDs: proxied, Slots: slots})
	for c, list := range m.services {
		for n, s := range list {
			p.SetService(c, n.namespace, n.name, s)
		}
	}
	for key, s := range m.slices {
		p.SetSlice(key.cluster, key.namespace, key.name, s)
	}
	return p
}

func drawService(t *rapid.T, n name) *record.Service {
	ports := rapid.SampledFrom([][]record.Port{
		{{Name: "http", Protocol: record.TCP, Number: 80}},
		{{Name: "http", Protocol: record.TCP, Number: 80}},
		{{Name: "http", Protocol: record.TCP, Number: 80}, {Name: "dns", Protocol: record.UDP, Number: 53}},
		{{Name: "web", Protocol: record.TCP, Number: 80}, {Name: "again", Protocol: record.TCP, Number: 80}},
		{{Name: "http", Protocol: record.TCP, Number: 80, NodePort: 30080}, {Name: "dns", Protocol: record.UDP, Number: 53, NodePort: 30053}},
		nil,
	})
	return &record.Service{
		Namespace: n.namespace, Name: n.name, Ports: ports.Draw(t, "ports"),
		ClusterIPs: rapid.SampledFrom([][]netip.Addr{
			addrs("10.96.0.1"), addrs("10.96.0.1"), addrs("10.96.0.1", "fd00::1"), addrs("10.96.0.2"), addrs("10.96.0.1", "10.96.0.2"), nil,
		}).Draw(t, "addresses"),
		External:        rapid.SampledFrom([][]netip.Addr{nil, nil, addrs("198.51.100.1"), addrs("198.51.100.1", "2001:db8::1"), addrs("10.96.0.1")}).Draw(t, "external"),
		ExternalByProxy: rapid.IntRange(0, 3).Draw(t, "external by proxy") == 0,
		Global:          rapid.IntRange(0, 4).Draw(t, "not global") != 4, Shared: rapid.IntRange(0, 4).Draw(t, "not shared") != 4,
		Affinity:        record.Affinity(rapid.IntRange(0, 2).Draw(t, "affinity")),
		AffinityTimeout: uint32(rapid.IntRange(0, 1).Draw(t, "timeout")),
		Headless:        rapid.IntRange(0, 9).Draw(t, "headless") == 0,
	}
}

func drawSlice(t *rapid.T, namespace, slice string) *record.Slice {
	s := &record.Slice{
		Namespace: namespace, Name: slice, Service: rapid.SampledFrom([]string{"a", "a", "a", "b"}).Draw(t, "service"),
		Ports: rapid.SampledFrom([][]record.Port{
			{{Name: "http", Protocol: record.TCP, Number: 8080}, {Name: "dns", Protocol: record.UDP, Number: 53}},
			{{Name: "http", Protocol: record.TCP, Number: 8080}, {Name: "web", Protocol: record.TCP, Number: 8080}},
			{{Name: "http", Protocol: record.TCP, Number: 8081}, {Name: "web", Protocol: record.TCP, Number: 8080}},
			nil,
		}).Draw(t, "ports"),
	}
	for range rapid.IntRange(0, 6).Draw(t, "backends") {
		s.Backends = append(s.Backends, record.Backend{
			Addr:  rapid.SampledFrom(addrs("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "fd00:1::1")).Draw(t, "address"),
			Ready: rapid.IntRange(0, 3).Draw(t, "not ready") != 3, Serving: rapid.Bool().Draw(t, "serving"), Terminating: rapid.Bool().Draw(t, "terminating"),
		})
	}
	return s
}

// After any changes, restarts among them, frontends lead to what the oracle says; and a restart writes nothing.
func TestPlannerIsTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, m := newKernel(), &mesh{services: map[string]map[name]*record.Service{}, slices: map[sliceKey]*record.Slice{}}
		p := plannerOf(k, m)
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				cluster := rapid.SampledFrom(append([]string{"east", "east"}, clusters...)).Draw(t, "cluster")
				gone := rapid.IntRange(0, 5).Draw(t, "gone") == 0
				if rapid.IntRange(0, 3).Draw(t, "of services") == 0 {
					n := name{rapid.SampledFrom([]string{"shop", "shop", "shop", "test"}).Draw(t, "namespace"), rapid.SampledFrom([]string{"a", "a", "a", "b", skipped}).Draw(t, "name")}
					if m.services[cluster] == nil {
						m.services[cluster] = map[name]*record.Service{}
					}
					var s *record.Service
					if gone {
						delete(m.services[cluster], n)
					} else {
						s = drawService(t, n)
						m.services[cluster][n] = s
					}
					p.SetService(cluster, n.namespace, n.name, s)
					continue
				}
				key := sliceKey{cluster, rapid.SampledFrom([]string{"shop", "shop", "shop", "test"}).Draw(t, "namespace"), rapid.SampledFrom([]string{"x", "y"}).Draw(t, "slice")}
				var s *record.Slice
				if gone {
					delete(m.slices, key)
				} else {
					s = drawSlice(t, key.namespace, key.name)
					m.slices[key] = s
				}
				p.SetSlice(key.cluster, key.namespace, key.name, s)
			}
			k.apply(t, p.Step())
			k.check(t, m.want("east"))
			if d := p.Step(); len(d.Frontends)+len(d.Slots) > 0 {
				t.Fatalf("a step without a change says %+v", d)
			}
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				// The first delta of a new planner is all there is to be: what the kernel has beyond it is pruned.
				before := k
				p, k = plannerOf(k, m), newKernel()
				k.apply(t, p.Step())
				k.check(t, m.want("east"))
				unsure := orphaned(before)
				for key, row := range k.frontends {
					if len(p.claims[key]) > 1 { // which of them had the id, nothing in the kernel says
						unsure[row.ID], unsure[before.frontends[key].ID] = true, true
					}
				}
				for key, row := range k.frontends {
					if before.frontends[key] != row && !unsure[row.ID] {
						t.Fatalf("a restart changes frontend %+v: %+v, was %+v", key, row, before.frontends[key])
					}
				}
				for key, at := range k.slots {
					if had := before.slots[key]; had != at && !unsure[key.ID] {
						t.Fatalf("a restart moves slot %+v from %s to %s", key, had, at)
					}
				}
			}
		}
	})
}

// orphaned are ids whose frontends belong to another service: nothing in the kernel says whose they are, so a restart
// gives that service another id.
func orphaned(k *kernel) map[uint32]bool {
	out := map[uint32]bool{}
	for key := range k.slots {
		out[key.ID] = true
	}
	for _, row := range k.frontends {
		delete(out, row.ID)
	}
	last := uint32(0)
	for _, row := range k.frontends {
		last = max(last, row.ID)
	}
	for i := range uint32(16) {
		out[last+1+i] = true // what such a service gets
	}
	return out
}

// Without a switch between tiers a backend that comes or goes writes at most two slots.
func TestOneBackendMovesAtMostOneOther(t *testing.T) {
	p, k := NewPlanner(Config{Cluster: "east"}), newKernel()
	p.SetService("east", "shop", "web", svc())
	all := make([]string, 1000)
	for i := range all {
		all[i] = fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250)
	}
	set := func(backends []string) {
		p.SetSlice("east", "shop", "s", slice("s", backends...))
		k.apply(t, p.Step())
	}
	set(all)
	for _, i := range []int{0, 500, 999} {
		set(slices.Delete(slices.Clone(all), i, i+1))
		if k.writes > 2 {
			t.Errorf("backend %d going writes %d slots", i, k.writes)
		}
		set(all)
		if k.writes > 1 {
			t.Errorf("backend %d coming writes %d slots", i, k.writes)
		}
	}
}

func TestServicesThatShareAnAddress(t *testing.T) {
	p, k := NewPlanner(Config{Cluster: "east"}), newKernel()
	b := svc(func(s *record.Service) { s.Name = "other" })
	p.SetService("east", "shop", "web", svc())
	p.SetSlice("east", "shop", "s", slice("s", "10.1.0.1"))
	k.apply(t, p.Step())
	p.SetService("east", "shop", "other", b)
	k.apply(t, p.Step())
	key := FrontendKey{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: 6}
	if got := k.backends(t, k.frontends[key]); len(got) != 0 {
		t.Errorf("the frontend leads to %v, not to the first service by name", got)
	}
	want := []string{"service shop/web: 10.96.0.1:80 (TCP) is the address of service shop/other too, which keeps it"}
	if got := p.Problems(); !slices.Equal(got, want) {
		t.Errorf("problems: %q", got)
	}
	p.SetService("east", "shop", "other", nil)
	k.apply(t, p.Step())
	if got := k.backends(t, k.frontends[key]); len(got) != 1 || p.Problems() != nil {
		t.Errorf("the frontend leads to %v, problems %q", got, p.Problems())
	}
}

// What the oracle finds wrong with one service the planner finds too.
func TestPlannerProblems(t *testing.T) {
	p := NewPlanner(Config{Cluster: "east"})
	p.SetService("east", "shop", "web", svc(global))
	p.SetService("west", "shop", "web", svc(global, func(s *record.Service) { s.Ports[0] = record.Port{Name: "dns", Protocol: record.UDP, Number: 53} }))
	p.SetService("north", "shop", "web", svc(global))
	p.SetSlice("east", "shop", "a", slice("a", "10.1.0.1"))
	p.SetSlice("north", "shop", "b", slice("b", "10.1.0.1"))
	p.Step()
	want := []string{
		`service shop/web: cluster west has no port "http" (TCP/80): its backends do not serve that port of shop/web`,
		"service shop/web: clusters east and north both claim the backend 10.1.0.1:8080; east keeps it",
	}
	if got := p.Problems(); !slices.Equal(got, want) {
		t.Errorf("problems: %q", got)
	}
	p.SetSlice("north", "shop", "b", nil)
	p.SetService("west", "shop", "web", nil)
	p.Step()
	if got := p.Problems(); got != nil {
		t.Errorf("problems stay: %q", got)
	}
}

func BenchmarkOneBackendOf10000(b *testing.B) {
	p := NewPlanner(Config{Cluster: "east"})
	p.SetService("east", "shop", "web", svc(global))
	p.SetService("west", "shop", "web", svc(global))
	list := make([]*record.Slice, 100)
	for i := range list {
		var backends []string
		for j := range 100 {
			backends = append(backends, fmt.Sprintf("10.%d.%d.1", i, j))
		}
		list[i] = slice(fmt.Sprint(i), backends...)
		p.SetSlice("west", "shop", list[i].Name, list[i])
	}
	p.Step()
	without := *list[50]
	without.Backends = slices.Delete(slices.Clone(without.Backends), 50, 51)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		s := &without
		if i%2 == 1 {
			s = list[50]
		}
		p.SetSlice("west", "shop", s.Name, s)
		if d := p.Step(); len(d.Slots) == 0 {
			b.Fatal("nothing changed")
		}
	}
}

func BenchmarkAllServices(b *testing.B) {
	for _, n := range []int{5_000, 100_000} {
		services, list := make([]*record.Service, n), make([]*record.Slice, n)
		for i := range n {
			services[i] = svc(func(s *record.Service) {
				s.Name = fmt.Sprintf("s%d", i)
				s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)})}
			})
			var backends []string
			for j := range 10 {
				backends = append(backends, fmt.Sprintf("10.%d.%d.%d", j, i>>8&255, i&255))
			}
			list[i] = slice(fmt.Sprintf("s%d-x", i), backends...)
			list[i].Service = services[i].Name
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p := NewPlanner(Config{Cluster: "east"})
				for i := range n {
					p.SetService("east", "shop", services[i].Name, services[i])
					p.SetSlice("east", "shop", list[i].Name, list[i])
				}
				if d := p.Step(); len(d.Slots) != 10*n {
					b.Fatal(len(d.Slots))
				}
			}
		})
	}
}
