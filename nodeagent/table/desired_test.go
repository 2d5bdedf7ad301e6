// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/cilium/statedb"
	"pgregory.net/rapid"
)

func tables(t rapid.TB) *Tables {
	all, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t rapid.TB, all *Tables, f func(statedb.WriteTxn) error) {
	t.Helper()
	if err := all.Write(f, all.Routes.Meta()); err != nil {
		t.Fatal(err)
	}
}

// However rows change hands between owners, Set and a Replacer leave the same table.
func TestReplacerIsSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := tables(t), tables(t)
		defer func() {
			if a.Close() != nil || b.Close() != nil {
				t.Error("closing the tables")
			}
		}()
		replacer := NewReplacer(b.Routes, "mine")
		draw := rapid.MapOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 5).Draw(t, "net"))}), 16)
		}), rapid.Custom(func(t *rapid.T) Route {
			return Route{Via: rapid.SampledFrom([]string{"tunnel", "gateway"}).Draw(t, "via")}
		}), 0, 6)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			rows := draw.Draw(t, "rows")
			write(t, a, func(txn statedb.WriteTxn) error { return a.Routes.Set(txn, "mine", rows) })
			write(t, b, func(txn statedb.WriteTxn) error { return replacer.Set(txn, maps.Clone(rows)) })
			if x, y := contents(a), contents(b); !maps.Equal(x, y) || !maps.Equal(x, rows) {
				t.Fatalf("Set leaves %v, Replacer %v, want %v", x, y, rows)
			}
		}
	})
}

func contents(all *Tables) map[netip.Prefix]Route {
	out := map[netip.Prefix]Route{}
	for row := range all.Routes.All(all.DB.ReadTxn()) {
		out[row.Key] = row.Value
	}
	return out
}

func TestSetTouchesOnlyItsOwnersRows(t *testing.T) {
	all := tables(t)
	defer func() {
		if err := all.Close(); err != nil {
			t.Error(err)
		}
	}()
	p := netip.MustParsePrefix
	write(t, all, func(txn statedb.WriteTxn) error {
		return all.Routes.Set(txn, "one", map[netip.Prefix]Route{p("10.0.0.0/8"): {Via: "tunnel"}, p("11.0.0.0/8"): {Via: "tunnel"}})
	})
	// The second owner takes a key over; the first gives up what it still has.
	write(t, all, func(txn statedb.WriteTxn) error {
		return all.Routes.Set(txn, "two", map[netip.Prefix]Route{p("10.0.0.0/8"): {Via: "gateway"}})
	})
	write(t, all, func(txn statedb.WriteTxn) error { return all.Routes.Set(txn, "one", nil) })
	want := map[netip.Prefix]Route{p("10.0.0.0/8"): {Via: "gateway"}}
	if got := contents(all); !maps.Equal(got, want) {
		t.Errorf("rows = %v, want %v", got, want)
	}
}

func TestAStatusOfAFormerValueIsNotRecorded(t *testing.T) {
	all := tables(t)
	defer func() {
		if err := all.Close(); err != nil {
			t.Error(err)
		}
	}()
	prefix := netip.MustParsePrefix("10.0.0.0/8")
	set := func(via string) *Row[netip.Prefix, Route] {
		write(t, all, func(txn statedb.WriteTxn) error {
			return all.Routes.Set(txn, "one", map[netip.Prefix]Route{prefix: {Via: via}})
		})
		row, _ := all.Routes.Get(all.DB.ReadTxn(), prefix)
		return row
	}
	old := set("tunnel")
	set("gateway")
	if err := all.Routes.SetStatus([]Result[netip.Prefix, Route]{{Row: old}}); err != nil {
		t.Fatal(err)
	}
	if row, _ := all.Routes.Get(all.DB.ReadTxn(), prefix); row.Status.State != Pending {
		t.Errorf("the new value is %s by the old one's result", row.Status.State)
	}
	same := set("gateway")
	if err := all.Routes.SetStatus([]Result[netip.Prefix, Route]{{Row: same}}); err != nil {
		t.Fatal(err)
	}
	if row := set("gateway"); row.Status.State != Done {
		t.Errorf("an unchanged row is %s again", row.Status.State)
	}
}
