// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

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

// otherLayout puts a map in the place of a pinned one, as a former version with another layout had it.
func otherLayout(t *testing.T, pin string, value []byte) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(value)), MaxEntries: 1})
	check(t, err)
	check(t, m.Put(uint32(0), value))
	check(t, os.Remove(pin))
	check(t, m.Pin(pin))
	check(t, m.Close())
}

// An agent that is killed while it swaps programs: the next one goes on with the maps that the swapped ones use, and knows
// which are not. Another upgrade before the end starts from the latest, with an epoch that no flow bears.
func TestAnUpgradeThatIsCutOffGoesOn(t *testing.T) {
	for _, mode := range []Mode{TCX, Clsact} {
		node(t, func(t *testing.T, dir string) {
			hook := func(i uint32) table.Hook { return table.Hook{Role: table.RolePod, Ifindex: i} }
			swapped, waits := veth(t, "pod0"), veth(t, "pod1")
			flow := func(port uint16) bpf.CT4Key { return bpf.CT4Key{PodPort: port, PeerPort: 80, Proto: 6} }
			first := open(t, dir, mode)
			check(t, put(first.Addresses(), netip.MustParseAddr("10.1.2.3"), bpf.Remote{Identity: 65800}))
			check(t, first.SetEpochs(7, 3))
			check(t, first.Attach(table.RolePod, swapped))
			check(t, first.Attach(table.RolePod, waits))
			defer first.Close()
			otherLayout(t, filepath.Join(dir, bpf.MapGroups), []byte("another layout"))

			second := open(t, dir, mode)
			if policy, full, err := second.Epochs(); err != nil || policy != 9 || full != 9 {
				t.Errorf("epochs %d and %d, %v, want 9: flows remember numbers of the former maps", policy, full, err)
			}
			if rows, err := have(second.Addresses()); err != nil || len(rows) != 0 {
				t.Errorf("addresses %v, %v beside groups of another layout", rows, err)
			}
			check(t, second.Close()) // killed before a program was swapped
			if left, err := os.ReadDir(filepath.Join(dir, "next")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %v, %v", left, err)
			}
			second = open(t, dir, mode)
			check(t, put(second.Addresses(), netip.MustParseAddr("10.1.2.4"), bpf.Remote{Identity: 65801}))
			check(t, second.SetEpochs(20, 9))
			check(t, second.Attach(table.RolePod, swapped))
			check(t, second.maps.CT4.Put(flow(2), bpf.CTEntry{RuleID: 2}))
			check(t, second.Close()) // killed between two programs

			third := open(t, dir, mode)
			if third.Outdated(hook(swapped)) || !third.Outdated(hook(waits)) {
				t.Errorf("outdated: %v, want interface %d", third.outdated, waits)
			}
			if policy, _, err := third.Epochs(); err != nil || policy != 20 {
				t.Errorf("epoch %d, %v, want the one that the swapped program uses", policy, err)
			}
			if rows, err := have(third.Addresses()); err != nil || len(rows) != 1 {
				t.Errorf("addresses %v, %v, want those that the swapped program uses", rows, err)
			}
			check(t, third.Close())

			otherLayout(t, filepath.Join(dir, "next", bpf.MapGroups), []byte("a third"))
			fourth := open(t, dir, mode)
			if policy, full, err := fourth.Epochs(); err != nil || policy != 22 || full != 22 {
				t.Errorf("epochs %d and %d, %v, want 22", policy, full, err)
			}
			check(t, fourth.Attach(table.RolePod, waits))
			check(t, fourth.Close())
			last := open(t, dir, mode)
			defer last.Close()
			if !last.Outdated(hook(swapped)) || last.Outdated(hook(waits)) {
				t.Errorf("outdated: %v, want interface %d", last.outdated, swapped)
			}
			check(t, last.Attach(table.RolePod, swapped))
			check(t, last.Attach(table.RolePod, waits))
			check(t, last.Settle())
			again := open(t, dir, mode)
			defer again.Close()
			if len(again.replaced) != 0 || len(again.outdated) != 0 {
				t.Errorf("at the end: %v replaced, %v outdated", again.replaced, again.outdated)
			}
			var e bpf.CTEntry
			if err := again.maps.CT4.Lookup(flow(2), &e); err != nil || e.RuleID != 2 {
				t.Errorf("a flow on the way: %+v, %v", e, err)
			}
		})
	}
}

// An upgrade that replaces fl_config goes on behind the old one's epoch: flows that outlive it bear epochs of the old map.
func TestTheEpochOutlivesAnotherLayoutOfItsMap(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		check(t, os.MkdirAll(dir, 0o700))
		old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1})
		check(t, err)
		check(t, old.Put(uint32(0), []byte{0x39, 0x30, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}))
		check(t, old.Pin(filepath.Join(dir, bpf.MapConfig)))
		check(t, old.Close())
		d := open(t, dir, TCX)
		defer d.Close()
		if !slices.Contains(d.replaced, bpf.MapConfig) {
			t.Fatalf("replaced = %v", d.replaced)
		}
		policy, full, err := d.Epochs()
		if err != nil || policy != 0x303b || full != 0x303b {
			t.Errorf("epochs %d and %d, %v; want %d", policy, full, err, 0x303b)
		}
	})
}
