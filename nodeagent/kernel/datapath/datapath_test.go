// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
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

// small maps: the tests are about the door, and run beside each other.
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
