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
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// small maps: the tests are about the driver, and run beside each other.
var small = map[string]uint32{
	bpf.MapIpcache4: 64, bpf.MapIpcache6: 64, bpf.MapCIDR4: 64, bpf.MapCIDR6: 64, bpf.MapCT4: 64, bpf.MapCT6: 64,
	bpf.MapGroups: 4, bpf.MapIdentities: 64, bpf.MapClasses: 64, bpf.MapGuard4: 64, bpf.MapGuard6: 64, bpf.MapSubjects: 64, bpf.MapServices4: 64, bpf.MapServices6: 64, bpf.MapSlots: 64,
	bpf.MapSockRev: 64, bpf.MapAffinity: 64, bpf.MapFrags: 64, bpf.MapRuleStats: 64, bpf.MapEventSeen: 64,
	bpf.MapPeers: 16,
}

// node gives the test a network namespace and a BPF file system of its own.
func node(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests load programs into the kernel: run them as root")
	}
	root := filepath.Join(t.TempDir(), "bpf")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", root, "bpf", 0, ""); err != nil {
		t.Fatalf("mount a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		ns, err := netns.New()
		if err != nil {
			t.Errorf("new network namespace: %v", err)
			return
		}
		defer ns.Close()
		f(t, filepath.Join(root, "fairlead"))
	}()
	<-done
}

func open(t *testing.T, dir string, mode Mode) *Datapath {
	t.Helper()
	d, err := Open(Config{Dir: dir, Mode: mode, Sizes: small})
	if err != nil {
		t.Errorf("open: %+v", err)
		runtime.Goexit()
	}
	return d
}

func put[K, V comparable](to Target[K, V], key K, value V) error {
	return errors.Join(to.Update(context.Background(), []K{key}, []V{value})...)
}

func remove[K, V comparable](from Target[K, V], key K) error {
	return errors.Join(from.Delete(context.Background(), []K{key})...)
}

func have[K, V comparable](t Target[K, V]) (map[K]V, error) {
	out := map[K]V{}
	err := t.Have(context.Background(), func(keys []K, values []V) {
		for i, key := range keys {
			out[key] = values[i]
		}
	})
	return out, err
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%+v", err)
		runtime.Goexit()
	}
}

func TestRowsOutliveTheProcess(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		four, six := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")
		row := bpf.Remote{Identity: 65800, Peer: 3, Flags: bpf.RemoteTunnel}
		front := table.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 443, Proto: 6}

		d := open(t, dir, TCX)
		check(t, put(d.Addresses(), four, row))
		check(t, put(d.Addresses(), six, row))
		check(t, put(d.Ranges(), netip.MustParsePrefix("10.0.0.0/8"), row))
		check(t, put(d.Ranges(), netip.MustParsePrefix("fd00::/48"), row))
		check(t, put(d.Peers(), 3, bpf.Peer{Flags: bpf.PeerReady}))
		check(t, put(d.Frontends(), front, bpf.Service{ID: 7, Backends: 1}))
		check(t, d.SetSettings(bpf.Config{PolicyEpoch: 4}))
		check(t, d.Close())

		d = open(t, dir, TCX)
		defer d.Close()
		addresses, err := have(d.Addresses())
		check(t, err)
		if len(addresses) != 2 || addresses[four] != row || addresses[six] != row {
			t.Errorf("addresses = %v", addresses)
		}
		ranges, err := have(d.Ranges())
		check(t, err)
		if len(ranges) != 2 || ranges[netip.MustParsePrefix("10.0.0.0/8")] != row || ranges[netip.MustParsePrefix("fd00::/48")] != row {
			t.Errorf("ranges = %v", ranges)
		}
		peers, err := have(d.Peers())
		check(t, err)
		if len(peers) != 1 || peers[3].Flags != bpf.PeerReady {
			t.Errorf("peers = %v", peers)
		}
		frontends, err := have(d.Frontends())
		check(t, err)
		if len(frontends) != 1 || frontends[front].ID != 7 {
			t.Errorf("frontends = %v", frontends)
		}
		if cfg, err := d.Settings(); err != nil || cfg.PolicyEpoch != 4 {
			t.Errorf("settings = %+v, %v", cfg, err)
		}
		check(t, remove(d.Addresses(), four))
		check(t, remove(d.Addresses(), four)) // absent is fine
		check(t, remove(d.Peers(), 3))
		if peers, err := have(d.Peers()); err != nil || len(peers) != 0 {
			t.Errorf("peers after deletion = %v, %v", peers, err)
		}
	})
}

func TestAFullMapSaysSo(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		var err error
		for i := range uint32(1000) { // a hash without preallocation may take some more than its size
			if err = put(d.Groups(), bpf.GroupKey{Group: i + 1}, bpf.GroupChunk{}); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("a map for 4 rows took 1000")
		}
	})
}

func veth(t *testing.T, name string) uint32 {
	t.Helper()
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	check(t, netlink.LinkAdd(l))
	found, err := netlink.LinkByName(name)
	check(t, err)
	return uint32(found.Attrs().Index)
}

func TestAttachSwapsWhatAnEarlierRunAttached(t *testing.T) {
	for _, mode := range []Mode{TCX, Clsact} {
		t.Run(string(mode), func(t *testing.T) {
			node(t, func(t *testing.T, dir string) {
				ifindex := veth(t, "pod0")
				first := open(t, dir, mode)
				check(t, first.Attach(table.RolePod, ifindex))
				check(t, first.Attach(table.RolePod, ifindex)) // again is fine
				before := programs(t, mode, ifindex)
				check(t, first.Close())
				if got := programs(t, mode, ifindex); len(got) != 2 || got[0] != before[0] {
					t.Errorf("after the process: %v, before: %v", got, before)
				}

				second := open(t, dir, mode)
				defer second.Close()
				attached, err := second.Attached(table.RolePod)
				check(t, err)
				if len(attached) != 1 || attached[0] != ifindex {
					t.Errorf("attached = %v, want [%d]", attached, ifindex)
				}
				check(t, second.Attach(table.RolePod, ifindex))
				after := programs(t, mode, ifindex)
				if len(after) != 2 || after[0] == before[0] || after[1] == before[1] {
					t.Errorf("programs %v were not swapped: %v", before, after)
				}
				check(t, second.Detach(table.RolePod, ifindex))
				if got := programs(t, mode, ifindex); len(got) != 0 {
					t.Errorf("after detaching: %v", got)
				}
				if attached, err := second.Attached(table.RolePod); err != nil || len(attached) != 0 {
					t.Errorf("attached after detaching = %v, %v", attached, err)
				}
			})
		})
	}
}

// programs lists the programs on an interface, ingress first.
func programs(t *testing.T, mode Mode, ifindex uint32) []ebpf.ProgramID {
	t.Helper()
	var out []ebpf.ProgramID
	if mode == TCX {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			q, err := link.QueryPrograms(link.QueryOptions{Target: int(ifindex), Attach: at})
			check(t, err)
			for _, p := range q.Programs {
				out = append(out, p.ID)
			}
		}
		return out
	}
	l, err := netlink.LinkByIndex(int(ifindex))
	check(t, err)
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		check(t, err)
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok {
				out = append(out, ebpf.ProgramID(b.Id))
			}
		}
	}
	return out
}

func TestALinkToAGoneInterfaceIsReplaced(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		ifindex := veth(t, "pod0")
		check(t, d.Attach(table.RolePod, ifindex))
		old, err := netlink.LinkByIndex(int(ifindex))
		check(t, err)
		check(t, netlink.LinkDel(old))
		// The same index for another interface, as after a wrap-around.
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pod1", Index: int(ifindex)}, PeerName: "pod1p"}))
		check(t, d.Attach(table.RolePod, ifindex))
		if got := programs(t, TCX, ifindex); len(got) != 2 {
			t.Errorf("programs on the new interface = %v", got)
		}
		check(t, d.Detach(table.RolePod, 4711)) // never was
	})
}

func TestRemoveLeavesNothing(t *testing.T) {
	for _, mode := range []Mode{TCX, Clsact} {
		t.Run(string(mode), func(t *testing.T) {
			node(t, func(t *testing.T, dir string) {
				ifindex := veth(t, "pod0")
				d := open(t, dir, mode)
				check(t, d.Attach(table.RolePod, ifindex))
				check(t, d.Close())
				check(t, Remove(dir))
				// The kernel frees what only a pin held a moment later.
				got := programs(t, mode, ifindex)
				for deadline := time.Now().Add(10 * time.Second); len(got) != 0 && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
					got = programs(t, mode, ifindex)
				}
				if len(got) != 0 {
					t.Errorf("programs after removal: %v", got)
				}
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("%s is still there: %v", dir, err)
				}
				check(t, Remove(dir)) // again is fine
			})
		})
	}
}

func TestWithoutABPFFileSystemTheReasonIsPlain(t *testing.T) {
	_, err := Open(Config{Dir: filepath.Join(t.TempDir(), "fairlead")})
	if err == nil || !contains(err, ErrNoBPFFS) {
		t.Errorf("error = %v, want %v", err, ErrNoBPFFS)
	}
}

// A map that gets another size is filled beside the old one. What packets wrote goes over, what the new programs wrote
// since stays, and until everything is in place a restart finds the old maps.
func TestAnotherSizeLosesNoFlow(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		ifindex := veth(t, "pod0")
		flow := func(port uint16) bpf.CT4Key { return bpf.CT4Key{PodPort: port, PeerPort: 80, Proto: 6} }
		addr, row := netip.MustParseAddr("10.1.2.3"), bpf.Remote{Identity: 65800}

		old := open(t, dir, TCX)
		check(t, put(old.Addresses(), addr, row))
		check(t, old.SetEpochs(7, 3))
		check(t, old.Attach(table.RolePod, ifindex))
		check(t, old.maps.CT4.Put(flow(1), bpf.CTEntry{RuleID: 1}))

		sizes := maps.Clone(small)
		sizes[bpf.MapCT4], sizes[bpf.MapIpcache4], sizes[bpf.MapConfig] = 4096, 128, 1
		d, err := Open(Config{Dir: dir, Mode: TCX, Sizes: sizes})
		check(t, err)
		defer d.Close()
		if got := d.Sizes()[bpf.MapCT4]; got != 4096 {
			t.Errorf("the new map has room for %d flows", got)
		}
		if rows, err := have(d.Addresses()); err != nil || len(rows) != 1 || rows[addr] != row {
			t.Errorf("the new map of addresses holds %v, %v", rows, err)
		}
		if !d.Outdated(table.Hook{Role: table.RolePod, Ifindex: ifindex}) || len(d.own) != 0 {
			t.Errorf("%d programs were swapped before anybody said so", len(d.own))
		}
		// What is written now is for the new programs alone.
		check(t, remove(d.Addresses(), addr))
		if rows, err := have(old.Addresses()); err != nil || len(rows) != 1 {
			t.Errorf("the old map of addresses holds %v, %v", rows, err)
		}
		check(t, put(d.Addresses(), addr, row))
		check(t, d.Attach(table.RolePod, ifindex))
		check(t, d.maps.CT4.Put(flow(1), bpf.CTEntry{RuleID: 11}))  // by a new program
		check(t, old.maps.CT4.Put(flow(2), bpf.CTEntry{RuleID: 2})) // by one that isn't swapped yet
		former, err := bpf.OpenFormer(dir, bpf.MapCT4)
		check(t, err)
		if former.MaxEntries() != small[bpf.MapCT4] {
			t.Errorf("a map for %d flows is in the old one's place before everything is swapped", former.MaxEntries())
		}
		check(t, former.Close())
		check(t, d.Settle())
		for port, want := range map[uint16]uint32{1: 11, 2: 2} {
			var e bpf.CTEntry
			if err := d.maps.CT4.Lookup(flow(port), &e); err != nil || e.RuleID != want {
				t.Errorf("flow %d: rule %d, want %d (%v)", port, e.RuleID, want, err)
			}
		}
		if policy, full, err := d.Epochs(); err != nil || policy != 7 || full != 3 {
			t.Errorf("epochs %d and %d, %v", policy, full, err)
		}
		check(t, old.Close())

		// From now on the size is the map's own.
		again, err := Open(Config{Dir: dir, Mode: TCX})
		check(t, err)
		defer again.Close()
		if got := again.Sizes()[bpf.MapCT4]; got != 4096 || len(again.replaced) != 0 {
			t.Errorf("after a restart: room for %d flows, replaced %v", got, again.replaced)
		}
	})
}

// A batch that meets a full map: what is there already is written, what is new is refused row by row, and the reason names
// the map and the flag.
func TestAFullMapTakesWhatItHas(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		ctx := context.Background()
		var keys []netip.Addr
		var values []bpf.Remote
		for i := range 512 {
			keys = append(keys, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
			values = append(values, bpf.Remote{Identity: 1})
		}
		errs := d.Addresses().Update(ctx, keys, values)
		rows, err := have(d.Addresses())
		check(t, err)
		var full *FullError
		for i, key := range keys {
			_, there := rows[key]
			if there != (errs[i] == nil) {
				t.Fatalf("%s: there %t, error %v", key, there, errs[i])
			}
			if errs[i] != nil && (!errors.As(errs[i], &full) || full.Map != bpf.MapIpcache4 || full.Size != small[bpf.MapIpcache4]) {
				t.Fatalf("%s: error %v", key, errs[i])
			}
		}
		if full == nil || len(rows) < int(small[bpf.MapIpcache4]) {
			t.Fatalf("%d rows of 512 are there, the last error is %v", len(rows), full)
		}
		for i := range values {
			values[i].Identity = 2
		}
		d.Addresses().Update(ctx, keys, values)
		again, err := have(d.Addresses())
		check(t, err)
		for key := range rows {
			if again[key].Identity != 2 {
				t.Errorf("%s was there and is not written: %v", key, again[key])
			}
		}
		// Deletion passes over what is not there.
		if errs := d.Addresses().Delete(ctx, keys); errs != nil {
			t.Errorf("deleting: %v", errors.Join(errs...))
		}
		if left, err := have(d.Addresses()); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// Tries and arrays take batches as hashes do.
func TestBatchesOfEveryKindOfMap(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		batch(t, d.Ranges(), bpf.Remote{Identity: 9}, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)
		})
		batch(t, d.Ranges(), bpf.Remote{Identity: 9}, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 16)
		})
		batch(t, d.Classes(), bpf.ClassSets{Sets: [32]uint64{5}}, func(i int) uint32 { return uint32(i) })
		batch(t, d.Peers(), bpf.Peer{Flags: bpf.PeerReady}, func(i int) uint16 { return uint16(i % 16) })
		batch(t, d.Guards(), 1, func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16) })
	})
}

func batch[K, V comparable](t *testing.T, to Target[K, V], value V, key func(int) K) {
	t.Helper()
	want := map[K]V{}
	for i := range 40 {
		want[key(i)] = value
	}
	keys := slices.Collect(maps.Keys(want))
	values := slices.Repeat([]V{value}, len(keys))
	if errs := to.Update(context.Background(), keys, values); errs != nil {
		t.Errorf("writing: %v", errors.Join(errs...))
	}
	got, err := have(to)
	check(t, err)
	if !maps.Equal(got, want) {
		t.Errorf("%T holds %v, want %v", to, got, want)
	}
	if errs := to.Delete(context.Background(), keys); errs != nil {
		t.Errorf("removing: %v", errors.Join(errs...))
	}
	if got, err := have(to); err != nil || len(got) != 0 {
		t.Errorf("%T holds %v after removal, %v", to, got, err)
	}
}

func TestRuleCounters(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		cpus, err := ebpf.PossibleCPU()
		check(t, err)
		perCPU := make([]bpf.Counter, cpus)
		for i := range perCPU {
			perCPU[i] = bpf.Counter{Packets: 2, Bytes: 100}
		}
		key := bpf.RuleKey{RuleID: 7, Dir: bpf.DirEgress, Verdict: bpf.VerdictDeny}
		check(t, d.maps.RuleStats.Put(&key, perCPU))
		got, err := d.RuleCounters()
		check(t, err)
		if want := (bpf.Counter{Packets: uint64(2 * cpus), Bytes: uint64(100 * cpus)}); len(got) != 1 || got[key] != want {
			t.Errorf("%v, want %v for rule 7", got, want)
		}
	})
}
