// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

var (
	firstPod  = netip.MustParseAddr("10.9.0.2")
	firstPod6 = netip.MustParseAddr("fd00:9::2")
	firstHost = netip.MustParseAddr("192.0.2.1")
	firstNode = netip.MustParseAddr("2001:db8::1")
)

// pair is a pod's interface, both ends in the test's namespace.
func pair(t *testing.T) (host, pod uint32) {
	t.Helper()
	host = veth(t, "pod0")
	for _, name := range []string{"pod0", "pod0p"} {
		l, err := netlink.LinkByName(name)
		check(t, err)
		// No packets but the test's own: no neighbour discovery.
		check(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0o644))
		check(t, netlink.LinkSetUp(l))
		pod = uint32(l.Attrs().Index)
	}
	return host, pod
}

// datagram is a UDP packet in an Ethernet frame.
func datagram(from, to netip.Addr) []byte {
	frame := make([]byte, 14, 80)
	frame[0], frame[6] = 2, 2
	if from.Is4() {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
		ip := [20]byte{0: 0x45, 3: 28, 8: 64, 9: unix.IPPROTO_UDP}
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
		var sum uint32
		for i := 0; i < len(ip); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[i:]))
		}
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
		frame = append(frame, ip[:]...)
	} else {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
		ip := [40]byte{0: 0x60, 5: 8, 6: unix.IPPROTO_UDP, 7: 64}
		copy(ip[8:], from.AsSlice())
		copy(ip[24:], to.AsSlice())
		frame = append(frame, ip[:]...)
	}
	return append(frame, 0x30, 0x39, 0x30, 0x3a, 0, 8, 0, 0)
}

func send(t *testing.T, device uint32, frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fd)
	err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(device), Protocol: binary.NativeEndian.Uint16(frame[12:])})
	if !errors.Is(err, unix.ENOBUFS) { // what a sender hears whose packet is dropped on its way out
		check(t, err)
	}
}

// exchange sends one packet of each family each way.
func exchange(t *testing.T, host, pod uint32) {
	t.Helper()
	send(t, pod, datagram(firstPod, firstHost))
	send(t, pod, datagram(firstPod6, firstNode))
	send(t, host, datagram(firstHost, firstPod))
	send(t, host, datagram(firstNode, firstPod6))
}

func counted(t *testing.T, d *Datapath, r bpf.Reason) [2]uint64 {
	t.Helper()
	all, err := d.Counters()
	check(t, err)
	return [2]uint64{all[Counter{r, bpf.HookPodEgress}].Packets, all[Counter{r, bpf.HookPodIngress}].Packets}
}

// known writes what the agent writes when it has found a pod that no policy selects.
func known(t *testing.T, d *Datapath, host uint32) {
	t.Helper()
	check(t, put(d.Addresses(), firstHost, bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}))
	check(t, put(d.Addresses(), firstNode, bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}))
	check(t, put(d.Ifaces(), host, bpf.Iface{
		Identity: 65800, Flags: bpf.IfaceIP4 | bpf.IfaceIP6, IP4: firstPod.As4(), IP6: firstPod6.As16(),
	}))
	check(t, put(d.Members(), bpf.IdentityHost, bpf.IdentityClass{Class: 1}))
	for bank := range uint8(2) {
		check(t, put(d.Subjects(), bpf.SubjectKey{Identity: 65800, Dir: bpf.DirEgress, Bank: bank}, bpf.Subject{Group: 1}))
	}
}

// What the plugin attached drops and counts, whether an agent runs or not, until an agent knows who is behind the interface.
// The agent goes on with the plugin's links.
func TestAnInterfaceIsClosedUntilTheAgentKnowsItsPod(t *testing.T) {
	for _, mode := range []Mode{TCX, Clsact} {
		t.Run(string(mode), func(t *testing.T) {
			node(t, func(t *testing.T, dir string) {
				check(t, open(t, dir, mode).Close()) // an agent ran once
				host, pod := pair(t)
				check(t, firstdrop.Close(dir, host))
				before := programs(t, mode, host)
				check(t, firstdrop.Close(dir, host)) // ADD may come twice
				if got := programs(t, mode, host); len(before) != 2 || !slices.Equal(got, before) {
					t.Errorf("programs %v, after the second time %v", before, got)
				}
				check(t, firstdrop.Check(dir, host))
				exchange(t, host, pod)

				d := open(t, dir, mode)
				defer d.Close()
				if got := counted(t, d, bpf.ReasonNoEndpoint); got != [2]uint64{2, 2} {
					t.Errorf("dropped without an agent: %v from and to the pod, want 2 each", got)
				}
				known(t, d, host)
				exchange(t, host, pod) // by the plugin's programs
				linked := links(t, dir, mode, host)
				check(t, d.Attach(table.RolePod, host))
				exchange(t, host, pod) // by the agent's
				if got := counted(t, d, bpf.ReasonHost); got != [2]uint64{4, 4} {
					t.Errorf("let through when the pod was known: %v from and to the pod, want 4 each", got)
				}
				if got := counted(t, d, bpf.ReasonNoEndpoint); got != [2]uint64{2, 2} {
					t.Errorf("dropped in the end: %v from and to the pod, want 2 each", got)
				}
				if got := links(t, dir, mode, host); !slices.Equal(got, linked) {
					t.Errorf("the agent made links %v of its own, the plugin's were %v", got, linked)
				}
				taken := programs(t, mode, host)
				if len(taken) != 2 || taken[0] == before[0] || taken[1] == before[1] {
					t.Errorf("programs %v of the former agent are %v now", before, taken)
				}
				check(t, firstdrop.Close(dir, host)) // a late ADD must not bring the former programs back
				if got := programs(t, mode, host); !slices.Equal(got, taken) {
					t.Errorf("the plugin replaced the agent's programs %v by %v", taken, got)
				}
			})
		})
	}
}

// links are the numbers of the TCX links on an interface.
func links(t *testing.T, dir string, mode Mode, ifindex uint32) []link.ID {
	t.Helper()
	var out []link.ID
	if mode != TCX {
		return out
	}
	for _, h := range []firstdrop.Hook{firstdrop.PodEgress, firstdrop.PodIngress} {
		l, err := link.LoadPinnedLink(filepath.Join(firstdrop.LinkDir(dir), h.Link(ifindex)), nil)
		check(t, err)
		info, err := l.Info()
		check(t, err)
		out = append(out, info.ID)
		check(t, l.Close())
	}
	return out
}

func TestWithoutAnAgentsProgramsNothingIsClosed(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		host, _ := pair(t)
		for name, err := range map[string]error{
			"close": firstdrop.Close(dir, host), "check": firstdrop.Check(dir, host), "ready": firstdrop.Ready(dir),
		} {
			if !errors.Is(err, firstdrop.ErrNoPrograms) {
				t.Errorf("%s: %v", name, err)
			}
		}
		d := open(t, dir, TCX)
		check(t, firstdrop.Ready(dir))
		if err := firstdrop.Check(dir, host); !errors.Is(err, firstdrop.ErrOpen) {
			t.Errorf("check of an open interface: %v", err)
		}
		check(t, d.Close())
		check(t, Remove(dir))
		if err := firstdrop.Ready(dir); !errors.Is(err, firstdrop.ErrNoPrograms) {
			t.Errorf("after the removal of everything: %v", err)
		}
	})
}

// How programs are attached is the agent's to choose, and it may choose another way at its next start.
func TestThePluginAttachesAsTheAgentDoes(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		host, _ := pair(t)
		for _, mode := range []Mode{TCX, Clsact} {
			check(t, open(t, dir, mode).Close())
		}
		check(t, firstdrop.Close(dir, host))
		if tcx, filters := programs(t, TCX, host), programs(t, Clsact, host); len(tcx) != 0 || len(filters) != 2 {
			t.Errorf("%d links and %d filters", len(tcx), len(filters))
		}
	})
}

func TestPinsOfAGoneInterface(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		host, _ := pair(t)
		check(t, firstdrop.Close(dir, host))
		if err := firstdrop.Forget(dir, host); !errors.Is(err, unix.EBUSY) {
			t.Errorf("forgetting a living interface: %v", err)
		}
		check(t, firstdrop.Check(dir, host))
		l, err := netlink.LinkByIndex(int(host))
		check(t, err)
		check(t, netlink.LinkDel(l))
		// Its index may be another interface's: what is pinned is not on that one.
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pod1", Index: int(host)}, PeerName: "pod1p"}))
		if err := firstdrop.Check(dir, host); !errors.Is(err, firstdrop.ErrOpen) {
			t.Errorf("check of the next interface: %v", err)
		}
		check(t, firstdrop.Close(dir, host))
		check(t, firstdrop.Check(dir, host))
		l, err = netlink.LinkByIndex(int(host))
		check(t, err)
		check(t, netlink.LinkDel(l))
		check(t, firstdrop.Forget(dir, host))
		check(t, firstdrop.Forget(dir, host))
		if left, err := os.ReadDir(firstdrop.LinkDir(dir)); err != nil || len(left) != 0 {
			t.Errorf("pins that are left: %v, %v", left, err)
		}
	})
}

// An upgrade that replaces maps: the plugin attaches the former programs until the new ones are in force.
func TestThePluginAttachesWhatIsInForce(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		former := open(t, dir, TCX)
		defer former.Close()
		sizes := maps.Clone(small)
		sizes[bpf.MapConfig], sizes[bpf.MapIpcache4] = 1, 128
		next, err := Open(Config{Dir: dir, Mode: TCX, Sizes: sizes})
		check(t, err)
		defer next.Close()
		host, pod := pair(t)
		check(t, firstdrop.Close(dir, host))
		exchange(t, host, pod)
		if got := counted(t, former, bpf.ReasonNoEndpoint); got != [2]uint64{2, 2} {
			t.Errorf("the former programs dropped %v", got)
		}
		known(t, next, host)
		check(t, next.Attach(table.RolePod, host))
		exchange(t, host, pod)
		if got := counted(t, next, bpf.ReasonHost); got != [2]uint64{2, 2} {
			t.Errorf("the new programs let %v through", got)
		}
		check(t, next.Settle())
		other := veth(t, "pod1")
		check(t, firstdrop.Close(dir, other))
		if got, want := programs(t, TCX, other), programs(t, TCX, host); !slices.Equal(got, want) {
			t.Errorf("the plugin attached %v in the end, the agent %v", got, want)
		}
	})
}

// Agent and plugin may attach at the same moment. One of them makes the link; it stays when both have ended.
func TestPluginAndAgentAtTheSameTime(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		for range 20 {
			d := open(t, dir, TCX)
			host, _ := pair(t)
			here, err := netns.Get()
			check(t, err)
			var both sync.WaitGroup
			both.Go(func() {
				runtime.LockOSThread()
				if err := errors.Join(netns.Set(here), firstdrop.Close(dir, host)); err != nil {
					t.Errorf("the plugin: %v", err)
				}
			})
			if err := d.Attach(table.RolePod, host); err != nil {
				t.Errorf("the agent: %v", err)
			}
			both.Wait()
			check(t, errors.Join(here.Close(), d.Close()))
			check(t, firstdrop.Check(dir, host))
			if got := programs(t, TCX, host); len(got) != 2 {
				t.Errorf("%d programs on the interface, want one a hook", len(got))
			}
			l, err := netlink.LinkByIndex(int(host))
			check(t, err)
			check(t, netlink.LinkDel(l))
			check(t, firstdrop.Forget(dir, host))
		}
	})
}

func TestHooksHaveTheirNames(t *testing.T) {
	if firstdrop.PodIngress.Name != bpf.HookPodIngress.String() || firstdrop.PodEgress.Name != bpf.HookPodEgress.String() {
		t.Errorf("%s and %s are called %s and %s in package bpf", firstdrop.PodIngress.Name, firstdrop.PodEgress.Name, bpf.HookPodIngress, bpf.HookPodEgress)
	}
	for _, pin := range []string{"pod-ingress-x", "pod-ingress-12_34", "pod-ingress", "pod-egress-12"} {
		if n, ok := firstdrop.PodIngress.Ifindex(pin); ok {
			t.Errorf("%s is taken for the pin of interface %d", pin, n)
		}
	}
	if n, ok := firstdrop.PodIngress.Ifindex(firstdrop.PodIngress.Link(12)); !ok || n != 12 {
		t.Errorf("the pin of interface 12 is read as %d, %t", n, ok)
	}
}

// arp is a question of the pod who has an address, or its answer to one.
func arp(op byte, sender netip.Addr) []byte {
	frame := make([]byte, 14, 60)
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2})
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 0)
	frame = append(frame, sender.AsSlice()...)
	return append(frame, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1)
}

// A pod with addresses that are known, but not who it is, may ask its neighbours and answer them, with its own address. The node
// talks to it and is answered, as under every policy; nobody else does, and what its policies say of the node is not known.
func TestAPodThatNobodyKnowsMayAskItsNeighbours(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		d := open(t, dir, TCX)
		defer d.Close()
		host, pod := pair(t)
		check(t, firstdrop.Close(dir, host))
		check(t, firstdrop.LetNeighbours(dir, host, firstdrop.Pod{Addresses: []netip.Addr{firstPod, firstPod6}}))
		check(t, put(d.Addresses(), firstHost, bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}))
		expect := func(what string, r bpf.Reason, from, to uint64, packets func()) {
			t.Helper()
			before := counted(t, d, r)
			packets()
			if after := counted(t, d, r); after[0]-before[0] != from || after[1]-before[1] != to {
				t.Errorf("%s: %s counts %d packets from the pod and %d to it, want %d and %d", what, r, after[0]-before[0], after[1]-before[1], from, to)
			}
		}
		expect("ARP", bpf.ReasonNeighbor, 2, 1, func() {
			send(t, pod, arp(1, firstPod))
			send(t, pod, arp(2, firstPod))
			send(t, host, arp(1, netip.MustParseAddr("10.9.0.1")))
		})
		expect("ARP in another pod's name", bpf.ReasonInvalidSource, 1, 0, func() { send(t, pod, arp(2, netip.MustParseAddr("10.9.0.3"))) })
		expect("to the node", bpf.ReasonNoPolicy, 1, 0, func() { send(t, pod, datagram(firstPod, firstHost)) })
		expect("the node, and its answer", bpf.ReasonHost, 1, 1, func() {
			send(t, host, datagram(firstHost, firstPod))
			answer := datagram(firstPod, firstHost)
			udp := answer[len(answer)-8:]
			udp[1], udp[3] = udp[3], udp[1] // the ports
			send(t, pod, answer)
		})
		other, other6 := netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd00:9::3")
		expect("another pod", bpf.ReasonNoPolicy, 2, 2, func() {
			send(t, pod, datagram(firstPod, other))
			send(t, pod, datagram(firstPod6, other6))
			send(t, host, datagram(other, firstPod))
			send(t, host, datagram(other6, firstPod6))
		})

		known(t, d, host)
		check(t, firstdrop.LetNeighbours(dir, host, firstdrop.Pod{})) // ADD once more, late
		if rows, err := have(d.Ifaces()); err != nil || rows[host].Identity != 65800 {
			t.Errorf("the agent's row became %+v, %v", rows[host], err)
		}
	})
}

// The plugin is older or newer than the map: it keeps its hands off.
func TestAMapOfAnotherLayoutGetsNoRow(t *testing.T) {
	node(t, func(t *testing.T, dir string) {
		check(t, firstdrop.LetNeighbours(dir, 7, firstdrop.Pod{})) // no map at all
		check(t, open(t, dir, TCX).Close())
		path := filepath.Join(dir, bpf.MapIfaces)
		check(t, os.Remove(path))
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 48, MaxEntries: 8})
		check(t, err)
		defer m.Close()
		check(t, m.Pin(path))
		check(t, firstdrop.LetNeighbours(dir, 7, firstdrop.Pod{}))
		var key uint32
		if err := m.NextKey(nil, &key); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("interface %d has a row in a map of another layout: %v", key, err)
		}
	})
}
