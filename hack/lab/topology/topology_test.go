// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustNew(t *testing.T, index int) *Instance {
	t.Helper()
	in, err := New(Spec{Name: "dev", Clusters: []string{"east", "west"}, Nodes: 2}, index)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestAddressesOfWest(t *testing.T) {
	west, err := mustNew(t, 3).Cluster("west")
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]string{
		"router":   {west.Router4.String(), "10.21.0.1/24"},
		"router6":  {west.Router6.String(), "fd00:21::1/64"},
		"pods":     {west.Pods4.String(), "10.24.0.0/16"},
		"pods6":    {west.Pods6.String(), "fd00:24::/48"},
		"services": {west.Svc4.String(), "10.26.0.0/16"},
		"dns":      {west.DNS4.String(), "10.26.0.10"},
		"uplink":   {west.Uplink.String(), "100.64.3.12"},
		"node 2":   {west.Nodes[1].Addr4.String(), "10.21.0.12/24"},
		"node 2v6": {west.Nodes[1].Addr6.String(), "fd00:21::12/64"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %s, want %s", what, pair[0], pair[1])
		}
	}
	if west.CNI {
		t.Error("west must come without a CNI")
	}
}

func TestClusterAddressesDoNotDependOnTheOthers(t *testing.T) {
	alone, err := New(Spec{Name: "dev", Clusters: []string{"west"}, Nodes: 2}, 0)
	if err != nil {
		t.Fatal(err)
	}
	both, _ := mustNew(t, 0).Cluster("west")
	if alone.Clusters[0].Router4 != both.Router4 {
		t.Errorf("west alone has %s, beside east %s", alone.Clusters[0].Router4, both.Router4)
	}
}

func TestBadSpecs(t *testing.T) {
	ok := Spec{Name: "dev", Clusters: []string{"east"}, Nodes: 2}
	for name, change := range map[string]func(*Spec) int{
		"dash in the name":    func(s *Spec) int { s.Name = "dev-2"; return 0 },
		"long name":           func(s *Spec) int { s.Name = strings.Repeat("a", 11); return 0 },
		"empty name":          func(s *Spec) int { s.Name = ""; return 0 },
		"path in the name":    func(s *Spec) int { s.Name = "../x"; return 0 },
		"unknown cluster":     func(s *Spec) int { s.Clusters = []string{"south"}; return 0 },
		"cluster named twice": func(s *Spec) int { s.Clusters = []string{"east", "east"}; return 0 },
		"no cluster":          func(s *Spec) int { s.Clusters = nil; return 0 },
		"no nodes":            func(s *Spec) int { s.Nodes = 0; return 0 },
		"too many nodes":      func(s *Spec) int { s.Nodes = 21; return 0 },
		"index too large":     func(*Spec) int { return 251 },
	} {
		spec := ok
		index := change(&spec)
		if _, err := New(spec, index); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// No two ranges of an instance may overlap, whatever was asked for: an
// overlap shows as traffic that arrives at the wrong machine.
func TestRangesNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, err := New(Spec{
			Name:     rapid.StringMatching(`[a-z][a-z0-9]{0,9}`).Draw(t, "name"),
			Clusters: rapid.Permutation(KnownClusters).Draw(t, "clusters")[:rapid.IntRange(1, 3).Draw(t, "n")],
			Nodes:    rapid.IntRange(1, maxNodes).Draw(t, "nodes"),
		}, rapid.IntRange(0, maxIndex).Draw(t, "index"))
		if err != nil {
			t.Fatal(err)
		}
		if len(in.UplinkName()) > 15 {
			t.Fatalf("interface name %s is too long", in.UplinkName())
		}
		ranges := []netip.Prefix{HubEtcd4.Masked(), HubEtcd6.Masked(), in.UplinkNet()}
		hosts := map[netip.Addr]string{}
		for _, c := range in.Clusters {
			ranges = append(ranges, c.Router4.Masked(), c.Router6.Masked(), c.Pods4, c.Pods6, c.Svc4, c.Svc6,
				c.WAN.Near4.Masked(), c.WAN.Near6.Masked())
			claim(t, hosts, c.Router4.Addr(), c.Name)
			claim(t, hosts, c.Uplink, c.Name)
			for _, n := range c.Nodes {
				claim(t, hosts, n.Addr4.Addr(), n.Name)
				claim(t, hosts, n.Addr6.Addr(), n.Name)
				if !c.Router4.Masked().Contains(n.Addr4.Addr()) || !c.Router6.Masked().Contains(n.Addr6.Addr()) {
					t.Fatalf("node %s is not on its cluster's link", n.Name)
				}
			}
		}
		for i, a := range ranges {
			for _, b := range ranges[:i] {
				if a.Overlaps(b) {
					t.Fatalf("%s overlaps %s", a, b)
				}
			}
		}
	})
}

func claim(t *rapid.T, hosts map[netip.Addr]string, a netip.Addr, who string) {
	if other, taken := hosts[a]; taken {
		t.Fatalf("%s is both %s and %s", a, other, who)
	}
	hosts[a] = who
}

func TestPartsAndLookups(t *testing.T) {
	in := mustNew(t, 0)
	want := "wan hub east east-1 east-2 west west-1 west-2"
	if got := strings.Join(in.Parts(), " "); got != want {
		t.Errorf("parts %q, want %q", got, want)
	}
	if n, c, err := in.Node("west-2"); err != nil || n.Name != "west-2" || c.Name != "west" {
		t.Errorf("node west-2: %v %v %v", n, c, err)
	}
	if _, _, err := in.Node("west-3"); err == nil {
		t.Error("found a node that is not there")
	}
	if _, err := in.Cluster("north"); err == nil {
		t.Error("found a cluster that is not there")
	}
}
