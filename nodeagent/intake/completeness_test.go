// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func everyKind(string) bool { return true }

func only(kinds ...string) func(string) bool {
	return func(kind string) bool { return slices.Contains(kinds, kind) }
}

func TestTheZeroCompletenessPermitsNothing(t *testing.T) {
	for name, c := range map[string]*Completeness{
		"zero": {}, "no cluster": NewCompleteness(nil),
		"no local cluster": NewCompleteness([]Member{{Name: "east", Complete: everyKind, Record: &record.Cluster{ID: 1, PodCIDRs: []netip.Prefix{prefix("10.1.0.0/16")}}}}),
	} {
		if c.Own() || c.All() || c.Identity(1<<16|300) || c.Identity(2) || c.Identity(1<<24|1) || c.Address(addr("10.1.0.1")) || c.Range(prefix("10.1.0.0/16")) {
			t.Errorf("%s: something is complete", name)
		}
	}
}

func TestWhatARowNeedsBeforeItMayGo(t *testing.T) {
	east := Member{Name: "east", Local: true, Complete: everyKind, Record: &record.Cluster{ID: 1, PodCIDRs: []netip.Prefix{prefix("10.1.0.0/16"), prefix("fd00:1::/48")}}}
	west := Member{Name: "west", Complete: only(record.KindCluster, record.KindIdentity), Record: &record.Cluster{ID: 2, PodCIDRs: []netip.Prefix{prefix("10.2.0.0/16")}}}
	ahead := Member{Name: "ahead", Unheard: true}
	c := NewCompleteness([]Member{east, west, ahead})
	for what, ok := range map[string]bool{
		"a policy's rows":                       c.Own(record.KindPolicy),
		"an own pod's address":                  c.Address(addr("10.1.2.3")),
		"an own pod's IPv6 address":             c.Address(addr("fd00:1::5")),
		"west's endpoints are missing":          !c.Address(addr("10.2.2.3")),
		"west's identities are there":           c.Identity(2<<16 | 256),
		"a number of no cluster":                c.Identity(9<<16 | 256),
		"a node's address, west's missing":      !c.Address(addr("192.0.2.1")),
		"ranges, every cluster record there":    c.Range(prefix("172.16.0.0/12")),
		"a range over west's":                   c.Range(prefix("10.0.0.0/8")),
		"all that every cluster is known of":    c.All(record.KindCluster, record.KindIdentity),
		"not all":                               !c.All(),
		"a cluster that nobody names":           !c.Cluster("north", record.KindNode),
		"a cluster's kind":                      c.Cluster("west", record.KindIdentity) && !c.Cluster("west"),
		"a cluster that was never heard of":     !c.Cluster("ahead", record.KindCluster),
		"IPv4 isn't found in IPv6 ranges":       !NewCompleteness([]Member{{Name: "e", Local: true, Complete: everyKind, Record: &record.Cluster{PodCIDRs: []netip.Prefix{prefix("::/1")}}}, {Name: "w"}}).Address(addr("1.2.3.4")),
		"two that claim a range are both asked": !NewCompleteness([]Member{east, {Name: "twin", Record: east.Record}}).Address(addr("10.1.0.1")),
	} {
		if !ok {
			t.Errorf("wrong: %s", what)
		}
	}
}

// Address must answer as looking at every range would.
func TestAddressEqualsLookingAtEveryRange(t *testing.T) {
	drawAddr := func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v6") {
			return netip.AddrFrom16([16]byte{0xfd, 15: byte(rapid.IntRange(0, 15).Draw(t, "host"))})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 15).Draw(t, "host"))})
	}
	rapid.Check(t, func(t *rapid.T) {
		members := []Member{{Name: "own", Local: true, Complete: everyKind}}
		for range rapid.IntRange(0, 4).Draw(t, "clusters") {
			m := Member{Name: string(rune('a' + len(members))), Unheard: rapid.Bool().Draw(t, "unheard")}
			if rapid.Bool().Draw(t, "complete") {
				m.Complete = everyKind
			}
			if !m.Unheard {
				a := drawAddr(t)
				m.Record = &record.Cluster{PodCIDRs: []netip.Prefix{netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 4).Draw(t, "bits")).Masked()}}
			}
			members = append(members, m)
		}
		a := drawAddr(t)
		owned, want, everybody := false, true, true
		for _, m := range members {
			complete := m.Complete != nil
			everybody = everybody && (complete || m.Unheard)
			if m.Record != nil && m.Record.PodCIDRs[0].Contains(a) {
				owned, want = true, want && complete
			}
		}
		if !owned {
			want = everybody
		}
		if got := NewCompleteness(members).Address(a); got != want {
			t.Fatalf("address %s: %t, want %t", a, got, want)
		}
	})
}
