// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A netNode is a node in a network namespace: one pod behind a veth pair, a TUN
// device where WireGuard would be, and the programs attached as the agent does.
// A cable copies packets between the TUN devices of two nodes.
type netNode struct {
	*fixture
	ns, podNS netns.NsHandle
	pod4      netip.Addr
	pod6      netip.Addr
	tun       *os.File

	attachment attachMode
}

const podMTU = 1500 // a foreign CNI's, larger than the tunnel's

// inNS runs f on a thread that lives and dies in the namespace.
func inNS(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("entering namespace: %w", err)
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func newNS(t *testing.T) netns.NsHandle {
	t.Helper()
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		done <- result{ns, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.ns.Close() })
	return r.ns
}

func newNetNode(t *testing.T, mode attachMode, number int, pod4, pod6 string) *netNode {
	n := &netNode{fixture: nodeFixture(t, number), ns: newNS(t), podNS: newNS(t), attachment: mode,
		pod4: netip.MustParseAddr(pod4), pod6: netip.MustParseAddr(pod6)}
	inNS(t, n.ns, n.wire)
	inNS(t, n.podNS, n.addressPod)
	inNS(t, n.ns, n.attach)
	return n
}

// gateway is the node's address on the pod's link: the same with host bits 1.
func gateway(a netip.Addr) netip.Addr {
	b := a.AsSlice()
	b[len(b)-1] = 1
	g, _ := netip.AddrFromSlice(b)
	return g
}

func addrOf(a netip.Addr) *netlink.Addr {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: unix.IFA_F_NODAD}
}

// wire builds the node's side: veth pair, TUN.
func (n *netNode) wire() error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(n.podNS)}
	veth.Name, veth.MTU = "pod", podMTU
	veth.HardwareAddr, veth.PeerHardwareAddr = hostMAC[:], podMAC[:]
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("adding veth: %w", err)
	}
	for _, pod := range []netip.Addr{n.pod4, n.pod6} {
		a := addrOf(gateway(pod))
		if pod.Is4() {
			a.Flags = 0
		}
		if err := netlink.AddrAdd(veth, a); err != nil {
			return fmt.Errorf("adding %s: %w", a, err)
		}
	}
	tun, err := openTUN("tun0")
	if err != nil {
		return err
	}
	n.tun = tun
	for _, name := range []string{"lo", "pod", "tun0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("raising %s: %w", name, err)
		}
	}
	return nil
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening TUN: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("creating TUN %s: %w", name, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (n *netNode) addressPod() error {
	for _, name := range []string{"lo", "eth0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("raising %s: %w", name, err)
		}
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, pod := range []netip.Addr{n.pod4, n.pod6} {
		a := addrOf(pod)
		if pod.Is4() {
			a.Flags = 0
		}
		if err := netlink.AddrAdd(eth, a); err != nil {
			return fmt.Errorf("adding %s: %w", a, err)
		}
		route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway(pod).AsSlice()}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("adding default route: %w", err)
		}
	}
	return nil
}

// attach writes the node's own rows and attaches the programs.
func (n *netNode) attach() error {
	pod, err := netlink.LinkByName("pod")
	if err != nil {
		return err
	}
	tun, err := netlink.LinkByName("tun0")
	if err != nil {
		return err
	}
	podIndex, tunIndex := pod.Attrs().Index, tun.Attrs().Index
	n.configure(Config{PolicyEpoch: firstEpoch, TunnelIfindex: uint32(tunIndex), TunnelMTU: tunnelMTU})
	n.must(n.maps.Ifaces.Put(uint32(podIndex), &Iface{
		Identity: podIdentity, Flags: IfaceIP4 | IfaceIP6, IP4: n.pod4.As4(), IP6: n.pod6.As16(),
		PodMAC: podMAC, HostMAC: hostMAC,
	}))
	for _, a := range []netip.Addr{n.pod4, n.pod6} {
		n.local(a, Local{Ifindex: uint32(podIndex), PodMAC: podMAC, HostMAC: hostMAC})
		n.address(a, Remote{Identity: podIdentity})
	}
	for _, a := range []attachment{
		{podIndex, n.progs.PodEgress, true},
		{podIndex, n.progs.PodIngress, false},
		{tunIndex, n.progs.TunnelIngress, true},
	} {
		if err := n.attachment(n.t, a); err != nil {
			return fmt.Errorf("attaching %s: %w", a.prog, err)
		}
	}
	return nil
}

// attachment is a program on a side of an interface.
type attachment struct {
	index   int
	prog    *ebpf.Program
	ingress bool
}

// An attachMode is a way to put a program on an interface.
type attachMode func(t *testing.T, a attachment) error

func tcx(t *testing.T, a attachment) error {
	side := ebpf.AttachTCXEgress
	if a.ingress {
		side = ebpf.AttachTCXIngress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: a.index, Program: a.prog, Attach: side})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

// clsact is the way of kernels before 6.6: a direct-action filter.
func clsact(_ *testing.T, a attachment) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: a.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding clsact: %w", err)
	}
	parent := uint32(netlink.HANDLE_MIN_EGRESS)
	if a.ingress {
		parent = netlink.HANDLE_MIN_INGRESS
	}
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: a.index, Parent: parent, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          a.prog.FD(), Name: "fairlead", DirectAction: true,
	})
}

// eachAttachMode runs a story with every way this kernel has. TCX is younger
// than the oldest kernel we support, clsact is everywhere.
func eachAttachMode(t *testing.T, story func(t *testing.T, mode attachMode)) {
	t.Run("clsact", func(t *testing.T) { story(t, clsact) })
	t.Run("tcx", func(t *testing.T) {
		if v, err := features.LinuxVersionCode(); err != nil || v < 6<<16|6<<8 {
			t.Skipf("TCX came with 6.6, this is %#x (%v)", v, err)
		}
		story(t, tcx)
	})
}

// knows tells the node about a pod of the other cluster.
func (n *netNode) knows(other *netNode) {
	for _, a := range []netip.Addr{other.pod4, other.pod6} {
		n.address(a, Remote{Identity: remoteIdentity, Peer: remotePeer,
			Flags: RemoteTunnel | RemoteRequireTunnel})
	}
}

// cable carries packets from one TUN to the other until it is closed.
func cable(t *testing.T, from, to *os.File) {
	t.Helper()
	t.Cleanup(func() { from.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if n > tunnelMTU {
				// The wire behind the tunnel takes no more: what comes
				// here too big is lost, and the test with it.
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil && errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}()
}

func twoNodes(t *testing.T, mode attachMode) (east, west *netNode) {
	t.Helper()
	east = newNetNode(t, mode, 0, "10.1.0.10", "fd00:1::10")
	west = newNetNode(t, mode, 1, "10.2.0.20", "fd00:2::20")
	east.knows(west)
	west.knows(east)
	cable(t, east.tun, west.tun)
	cable(t, west.tun, east.tun)
	return east, west
}

// Pods of two clusters talk through the tunnel, both ways, in both families,
// with packets larger than the tunnel's MTU and no help by the nodes' routes.
func TestPodsTalkThroughTheTunnel(t *testing.T) { eachAttachMode(t, podsTalkThroughTheTunnel) }

func podsTalkThroughTheTunnel(t *testing.T, mode attachMode) {
	east, west := twoNodes(t, mode)
	for _, tc := range []struct {
		what           string
		client, server *netNode
		to             netip.Addr
	}{
		{"east to west, IPv4", east, west, west.pod4},
		{"east to west, IPv6", east, west, west.pod6},
		{"west to east, IPv4", west, east, east.pod4},
		{"west to east, IPv6", west, east, east.pod6},
	} {
		t.Run(tc.what, func(t *testing.T) { transfer(t, tc.client, tc.server, tc.to) })
	}
	for _, n := range []*netNode{east, west} {
		if n.count(ReasonTunneled, HookPodEgress) == 0 || n.count(ReasonDelivered, HookTunnelIngress) == 0 {
			t.Error("nothing went through the tunnel")
		}
	}
}

func (n *netNode) count(r Reason, h Hook) uint64 { return n.metrics()[MetricIndex(r, h)] }

// transfer sends a megabyte and gets it back.
func transfer(t *testing.T, client, server *netNode, to netip.Addr) {
	t.Helper()
	var l net.Listener
	inNS(t, server.podNS, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to, 80).String())
		return err
	})
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	inNS(t, client.podNS, func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), 30*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		if sha256.Sum256(got) != sha256.Sum256(sent) {
			return fmt.Errorf("%d bytes came back, other than the %d sent", len(got), len(sent))
		}
		return nil
	})
}

// The pod's own kernel believes our "too big" and learns the tunnel's MTU.
func TestPodLearnsTheTunnelsMTU(t *testing.T) { eachAttachMode(t, podLearnsTheTunnelsMTU) }

func podLearnsTheTunnelsMTU(t *testing.T, mode attachMode) {
	east, west := twoNodes(t, mode)
	for _, tc := range []struct {
		to               netip.Addr
		level, mtuOption int
		headers          int
	}{
		{west.pod4, unix.IPPROTO_IP, unix.IP_MTU, 28},
		{west.pod6, unix.IPPROTO_IPV6, unix.IPV6_MTU, 48},
	} {
		t.Run(tc.to.String(), func(t *testing.T) {
			var server *net.UDPConn
			inNS(t, west.podNS, func() (err error) {
				server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(tc.to, 99)))
				return err
			})
			defer server.Close()
			received := make(chan int, 1)
			go func() {
				n, _ := server.Read(make([]byte, 2000))
				received <- n
			}()
			inNS(t, east.podNS, func() error {
				c, err := net.Dial("udp", netip.AddrPortFrom(tc.to, 99).String())
				if err != nil {
					return err
				}
				defer c.Close()
				big := bytes.Repeat([]byte{1}, podMTU-tc.headers)
				if _, err := c.Write(big); err != nil {
					return fmt.Errorf("first packet: %w", err)
				}
				// The answer came back inside that send.
				mtu, err := mtuOf(c.(*net.UDPConn), tc.level, tc.mtuOption)
				if err != nil || mtu != tunnelMTU {
					return fmt.Errorf("path MTU %d, %v, want %d", mtu, err, tunnelMTU)
				}
				return sendUntil(received, c, big[:tunnelMTU-tc.headers])
			})
		})
	}
	if east.count(ReasonTooBig, HookPodEgress) == 0 {
		t.Error("nothing was too big")
	}
}

// sendUntil repeats a datagram until it has arrived whole: UDP promises nothing.
func sendUntil(received <-chan int, c net.Conn, data []byte) error {
	for range 150 {
		if _, err := c.Write(data); err != nil && !errors.Is(err, unix.EMSGSIZE) { // an older error is told once
			return err
		}
		select {
		case n := <-received:
			if n != len(data) {
				return fmt.Errorf("%d bytes arrived, %d were sent", n, len(data))
			}
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("%d bytes never arrived", len(data))
}

func mtuOf(c *net.UDPConn, level, option int) (mtu int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, option) })
	return mtu, errors.Join(err, cerr)
}

// Policy stands at the destination's interface, also for what the tunnel brings.
func TestPolicyBehindTheTunnel(t *testing.T) { eachAttachMode(t, policyBehindTheTunnel) }

func policyBehindTheTunnel(t *testing.T, mode attachMode) {
	east, west := twoNodes(t, mode)
	west.isolate(DirIngress, 0)
	inNS(t, east.podNS, func() error {
		_, err := net.DialTimeout("tcp", netip.AddrPortFrom(west.pod4, 80).String(), 300*time.Millisecond)
		if err == nil {
			return errors.New("connected in spite of the policy")
		}
		return nil
	})
	if west.count(ReasonDefaultDenied, HookPodIngress) == 0 {
		t.Error("no packet met the policy")
	}
	west.rule(DirIngress, line{peer: remoteIdentity, proto: 6, from: 80, rule: 1})
	west.bumpEpoch()
	transfer(t, east, west, west.pod4)
}
