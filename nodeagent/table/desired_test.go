// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"errors"
	"maps"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/bpf"
)

func contents[K, V comparable](d *Desired[K, V]) map[K]V {
	out := map[K]V{}
	for row := range d.All() {
		out[row.Key] = row.Value
	}
	return out
}

func drawPrefix(t *rapid.T) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 5).Draw(t, "net"))}), 16)
}

func drawRoute(t *rapid.T) Route {
	return Route{Via: rapid.SampledFrom([]string{"tunnel", "gateway"}).Draw(t, "via")}
}

// However rows change hands between owners: the table has every key that an owner has, with the value of one of them,
// and what an owner gives up leaves the others' rows alone.
func TestOwnersShareATable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := New()
		owned := NewOwned(all.ForPlan().Routes)
		want := map[string]map[netip.Prefix]Route{}
		draw := rapid.MapOfN(rapid.Custom(drawPrefix), rapid.Custom(drawRoute), 0, 6)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			owner := rapid.SampledFrom([]string{"one", "two", "three"}).Draw(t, "owner")
			want[owner] = draw.Draw(t, "rows")
			all.Write(func(txn *Txn) { owned.Set(txn, owner, maps.Clone(want[owner])) })
			got := contents(all.Routes)
			for key, value := range got {
				if !wantedByOne(want, key, value) {
					t.Fatalf("%v is %v, which nobody wants of %v", key, value, want)
				}
			}
			for _, rows := range want {
				for key := range rows {
					if _, ok := got[key]; !ok {
						t.Fatalf("%v is missing, wanted by one of %v", key, want)
					}
				}
			}
			for key, value := range want[owner] {
				if got[key] != value && owned.owner[key] == owner {
					t.Fatalf("%v is %v after its owner set %v", key, got[key], value)
				}
			}
		}
	})
}

func wantedByOne(want map[string]map[netip.Prefix]Route, key netip.Prefix, value Route) bool {
	for _, rows := range want {
		if v, ok := rows[key]; ok && v == value {
			return true
		}
	}
	return false
}

// The node's own addresses cover what the planners want, in whichever order they are written.
func TestTheNodesAddressesCoverThePlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := New()
		plan, node := all.ForPlan().Addresses, all.ForNode().Hosts
		lower, upper := map[netip.Addr]bpf.Remote{}, map[netip.Addr]bpf.Remote{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			to, model := plan, lower
			if rapid.Bool().Draw(t, "node") {
				to, model = node, upper
			}
			key := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 3).Draw(t, "addr"))})
			value := bpf.Remote{Identity: rapid.Uint32Range(1, 3).Draw(t, "identity")}
			all.Write(func(txn *Txn) {
				if rapid.Bool().Draw(t, "put") {
					to.Put(txn, key, value)
					model[key] = value
				} else {
					to.Delete(txn, key)
					delete(model, key)
				}
				if v, ok := to.Get(txn, key); ok != (model[key] != bpf.Remote{}) || v != model[key] {
					t.Fatalf("the writer reads %v, %t; wrote %v", v, ok, model[key])
				}
			})
			want := maps.Clone(lower)
			maps.Copy(want, upper)
			if got := contents(all.Addresses); !maps.Equal(got, want) {
				t.Fatalf("addresses = %v, want %v", got, want)
			}
		}
	})
}

// Counts are kept, and are what counting comes to.
func TestCountsAreWhatCountingComesTo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := New()
		to, feed := all.ForPlan().Addresses, all.Addresses.Follow()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			key := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 5).Draw(t, "addr"))})
			if rapid.Bool().Draw(t, "six") {
				key = netip.AddrFrom16(key.As16())
			}
			value := bpf.Remote{Identity: rapid.Uint32Range(1, 2).Draw(t, "identity")}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				all.Write(func(txn *Txn) { to.Put(txn, key, value) })
			case 1:
				all.Write(func(txn *Txn) { to.Delete(txn, key) })
			case 2:
				errs := []error{rapid.SampledFrom([]error{nil, errors.New("full")}).Draw(t, "err")}
				feed.Settle([]netip.Addr{key}, []bpf.Remote{value}, errs)
			case 3:
				all.Read(func(txn *Txn) { feed.Next(txn, func(RowChange[netip.Addr, bpf.Remote]) {}) })
			}
			var want [3]int
			var families [2]int
			for row := range all.Addresses.All() {
				want[row.Status.State]++
				if row.Key.Is6() {
					families[1]++
				} else {
					families[0]++
				}
			}
			if got := all.Addresses.Count(); got != want {
				t.Fatalf("counts are %v, the rows come to %v", got, want)
			}
			if four, six := all.Addresses.Families(); four != families[0] || six != families[1] {
				t.Fatalf("families are %d and %d, the rows come to %v", four, six, families)
			}
			if n := len(all.Addresses.FailedRows(100)); n != want[Failed] {
				t.Fatalf("%d failed rows are listed of %d", n, want[Failed])
			}
		}
	})
}

func TestAStatusOfAFormerValueIsNotRecorded(t *testing.T) {
	all := New()
	prefix := netip.MustParsePrefix("10.0.0.0/8")
	routes, feed := all.ForPlan().Routes, all.Routes.Follow()
	put := func(via string) {
		all.Write(func(txn *Txn) { routes.Put(txn, prefix, Route{Via: via}) })
	}
	settle := func(via string) { feed.Settle([]netip.Prefix{prefix}, []Route{{Via: via}}, nil) }
	put("tunnel")
	put("gateway")
	settle("tunnel")
	if row, _ := all.Routes.Get(prefix); row.Status.State != Pending {
		t.Errorf("the new value is %s by the old one's result", row.Status.State)
	}
	settle("gateway")
	put("gateway")
	if row, _ := all.Routes.Get(prefix); row.Status.State != Done {
		t.Errorf("an unchanged row is %s again", row.Status.State)
	}
}

// A reader that is late sees each row once, as it is now.
func TestALateReaderSeesTheLastValueOnce(t *testing.T) {
	all := New()
	rules, changes := all.ForPlan().Rules, all.Rules.Changes()
	_, watch := changes.Next()
	for _, name := range []string{"a", "b", "c"} {
		all.Write(func(txn *Txn) {
			rules.Put(txn, 1, Rule{Name: name})
			rules.Put(txn, 2, Rule{Name: name})
		})
	}
	all.Write(func(txn *Txn) { rules.Delete(txn, 2) })
	<-watch
	got, _ := changes.Next()
	if len(got) != 2 {
		t.Fatalf("changes = %v", got)
	}
	for _, c := range got {
		if c.Key == 1 && (c.Deleted || c.Value.Name != "c") || c.Key == 2 && !c.Deleted {
			t.Errorf("change = %+v", c)
		}
	}
	if again, _ := changes.Next(); len(again) != 0 {
		t.Errorf("seen again: %v", again)
	}
}
