// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// renumbered is first with the numbers of the friend and the foe swapped, as an agent that remembers none may give them.
func renumbered() policy.Change {
	c := first()
	rows := c.Before
	rows.Members[friendIdentity], rows.Members[foeIdentity] = rows.Members[foeIdentity], rows.Members[friendIdentity]
	chunk := *rows.Groups[bpf.GroupKey{Group: 7}]
	chunk.Line[0] = line(1, bpf.VerdictDeny)
	rows.Groups[bpf.GroupKey{Group: 7}] = &chunk
	return c
}

// An upgrade under traffic, with maps of another layout or size. While the new maps are filled, row by row, the former
// programs judge as before; after the swap the first packet of a running connection passes, if policy allows it, and none that
// it denies. Numbers of the former maps mean nothing in the new ones.
func TestAnUpgradeUnderTrafficCutsNothingAndOpensNothing(t *testing.T) {
	for name, then := range map[string]struct {
		change  func() policy.Change
		foe     uint16 // the set that the foe is in
		replace func(t *testing.T, dir string, sizes map[string]uint32)
	}{
		"another layout": {renumbered, 1, func(t *testing.T, dir string, _ map[string]uint32) {
			otherLayout(t, filepath.Join(dir, bpf.MapClasses), []byte("another layout"))
		}},
		"another size":                       {first, 2, func(_ *testing.T, _ string, sizes map[string]uint32) { sizes[bpf.MapIpcache4] = 128 }},
		"another size of the table of flows": {first, 2, func(_ *testing.T, _ string, sizes map[string]uint32) { sizes[bpf.MapCT4] = 128 }},
	} {
		t.Run(name, func(t *testing.T) {
			node(t, func(t *testing.T, dir string) {
				sizes := maps.Clone(small)
				sizes[bpf.MapGroups] = 64
				former := newWorld(t, dir, sizes)
				defer former.close()
				former.groundwork()
				former.to.Publish(first())
				former.settle()
				former.attach()
				former.settle()
				check(t, former.d.Attach(table.RolePod, podIfindex))
				running := uint16(2000) // the port of the latest connection to the friend
				traffic := func(w *world, when string) {
					t.Helper()
					if !w.passes(friendAddr, running, 16) {
						t.Errorf("%s: a running connection is cut", when)
					}
					if running++; !w.passes(friendAddr, running, 2) {
						t.Errorf("%s: a new connection is refused", when)
					}
					for _, a := range []netip.Addr{foeAddr, nobodyAddr, blockAddr} {
						if w.connects(a) || w.passes(a, running, 16) {
							t.Errorf("%s: a packet to %s passes", when, a)
						}
					}
				}
				former.passes(friendAddr, running, 2)
				traffic(former, "before the upgrade")

				then.replace(t, dir, sizes)
				next := newWorld(t, dir, sizes)
				defer next.close()
				waits := next.d.Outdated(table.Hook{Role: table.RolePod, Ifindex: podIfindex})
				if want := name != "another size of the table of flows"; waits != want {
					t.Errorf("the former programs wait: %t, want %t", waits, want)
				}
				next.groundwork()
				next.to.Publish(then.change())
				for range 6 {
					next.to.Step()
					next.loop.Pass(context.Background(), next.now, func(string) bool { return true })
					next.now = next.now.Add(time.Minute)
					traffic(former, "while the new maps are filled")
				}
				check(t, next.d.Attach(table.RolePod, podIfindex))
				next.port = former.port
				traffic(next, "after the swap")
				check(t, next.d.Settle())
				traffic(next, "in the end")

				// What the former policy allowed and the present one doesn't.
				revoke := second()
				revoke.Before.Groups[bpf.GroupKey{Group: 8}].Line[0].Set = then.foe
				next.to.Publish(revoke)
				next.settle()
				if next.passes(friendAddr, running, 16) {
					t.Error("a running connection outlives the policy that allowed it")
				}
			})
		})
	}
}

// A set of maps of which one is missing, because the former version didn't have it, is replaced as a whole.
func TestAnUpgradeThatBringsAMapReplacesItsSet(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		first := open(t, dir, TCX)
		addr := netip.MustParseAddr("10.1.2.3")
		check(t, put(first.Addresses(), addr, bpf.Remote{Identity: identity.World}))
		check(t, first.Close())
		check(t, os.Remove(filepath.Join(dir, bpf.MapSets)))
		d := open(t, dir, TCX)
		defer d.Close()
		if rows, err := have(d.Addresses()); err != nil || len(rows) != 0 {
			t.Errorf("addresses %v, %v beside a map that is new", rows, err)
		}
	})
}
