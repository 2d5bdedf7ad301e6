// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// childCgroup tells the re-executed test binary which cgroup it lives in.
const childCgroup = "FAIRLEAD_TEST_CGROUP"

// TestSocketLB runs its stories with real sockets in a process of its own,
// started in a private cgroup (which the programs are attached to) and a
// private network namespace: no other process of the machine is translated.
func TestSocketLB(t *testing.T) {
	if dir := os.Getenv(childCgroup); dir != "" {
		socketStories(t, dir)
		return
	}
	dir := privateCgroup(t)
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSocketLB$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), childCgroup+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(fd.Fd()), Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the private cgroup: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// privateCgroup makes a cgroup below the machine's v2 hierarchy, mounting one
// if there is none.
func privateCgroup(t *testing.T) string {
	t.Helper()
	var root string
	for _, p := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			root = p
		}
	}
	if root == "" {
		root = t.TempDir()
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("mounting cgroup2: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	}
	dir := filepath.Join(root, fmt.Sprintf("fairlead-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// Addresses of the stories; all backends live on the child's loopback.
var (
	vip4      = netip.MustParseAddrPort("10.96.0.80:80")
	vip6      = netip.MustParseAddrPort("[fd00:96::80]:80")
	backends4 = []netip.AddrPort{netip.MustParseAddrPort("127.1.0.1:8001"), netip.MustParseAddrPort("127.1.0.2:8002")}
	backends6 = []netip.AddrPort{netip.MustParseAddrPort("[fd00:b::1]:8001"), netip.MustParseAddrPort("[fd00:b::2]:8002")}
)

type socketFixture struct {
	*fixture
}

func socketStories(t *testing.T, cgroup string) {
	loopbackUp(t)
	f := socketFixture{newFixture(t)}
	f.attach(cgroup)
	for _, b := range append(append([]netip.AddrPort{}, backends4...), backends6...) {
		serveTCP(t, b)
		serveUDP(t, b)
	}
	t.Run("TCP", f.tcpStory)
	t.Run("UDP connected", f.udpConnectedStory)
	t.Run("UDP unconnected", f.udpUnconnectedStory)
	t.Run("IPv4 in IPv6 clothes", f.mappedStory)
	t.Run("no backend", f.noBackendStory)
	t.Run("no service", f.noServiceStory)
	t.Run("missing slot", f.missingSlotStory)
	t.Run("session affinity", f.affinityStory)
	t.Run("for policy alone", f.policyOnlyStory)
	t.Run("node port", f.nodePortStory)
	t.Run("own port beside a node port", f.ownPortStory)
	t.Run("answer to a node port", f.answerStory)
}

func loopbackUp(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, b := range backends6 {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: b.Addr().AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
}

func (f socketFixture) attach(cgroup string) {
	p := f.progs
	for _, a := range []struct {
		attach ebpf.AttachType
		prog   *ebpf.Program
	}{
		{ebpf.AttachCGroupInet4Connect, p.Connect4}, {ebpf.AttachCGroupInet6Connect, p.Connect6},
		{ebpf.AttachCGroupUDP4Sendmsg, p.Sendmsg4}, {ebpf.AttachCGroupUDP6Sendmsg, p.Sendmsg6},
		{ebpf.AttachCGroupUDP4Recvmsg, p.Recvmsg4}, {ebpf.AttachCGroupUDP6Recvmsg, p.Recvmsg6},
		{ebpf.AttachCgroupInet4GetPeername, p.Getpeername4}, {ebpf.AttachCgroupInet6GetPeername, p.Getpeername6},
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: a.attach, Program: a.prog})
		f.must(err)
		f.t.Cleanup(func() { l.Close() })
	}
}

// service writes a service of the given backends for TCP and UDP.
func (f socketFixture) service(vip netip.AddrPort, id, flags uint32, backends []netip.AddrPort) {
	f.t.Helper()
	for i, b := range backends {
		f.slot(id, i, b)
	}
	v := &Service{ID: id, Backends: uint32(len(backends)), Flags: flags, AffinitySeconds: 3600}
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		if vip.Addr().Is4() {
			f.must(f.maps.Services4.Put(&Service4Key{Addr: vip.Addr().As4(), Port: vip.Port(), Proto: proto}, v))
			continue
		}
		f.must(f.maps.Services6.Put(&Service6Key{Addr: vip.Addr().As16(), Port: vip.Port(), Proto: proto}, v))
	}
}

func (f socketFixture) slot(id uint32, slot int, b netip.AddrPort) {
	f.t.Helper()
	entry := &Backend{ID: uint32(b.Port()), Port: b.Port(), Family: unix.AF_INET6}
	if b.Addr().Is4() {
		entry.Family = unix.AF_INET
	}
	copy(entry.Addr[:], b.Addr().AsSlice())
	f.must(f.maps.Slots.Put(&SlotKey{Service: id, Slot: uint32(slot)}, entry))
}

// eachVIP runs a story for a two-backend service of either family.
func (f socketFixture) eachVIP(t *testing.T, story func(t *testing.T, vip netip.AddrPort, backends []netip.AddrPort)) {
	f.service(vip4, 1, 0, backends4)
	f.service(vip6, 2, 0, backends6)
	t.Run("ip4", func(t *testing.T) { story(t, vip4, backends4) })
	t.Run("ip6", func(t *testing.T) { story(t, vip6, backends6) })
}

func (f socketFixture) tcpStory(t *testing.T) {
	f.eachVIP(t, func(t *testing.T, vip netip.AddrPort, backends []netip.AddrPort) {
		seen := map[string]int{}
		for range 40 {
			c := dial(t, "tcp", vip)
			seen[hello(t, c)]++
			if got := peername(t, c); got != vip {
				t.Fatalf("getpeername says %s, want %s", got, vip)
			}
			c.Close()
		}
		if len(seen) != len(backends) {
			t.Errorf("backends reached: %v, want all of %v", seen, backends)
		}
	})
}

func (f socketFixture) udpConnectedStory(t *testing.T) {
	f.eachVIP(t, func(t *testing.T, vip netip.AddrPort, _ []netip.AddrPort) {
		c := dial(t, "udp", vip).(*net.UDPConn)
		hello(t, c)
		if got := peername(t, c); got != vip {
			t.Errorf("getpeername says %s, want %s", got, vip)
		}
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 64))
		if err != nil || unmap(from) != vip {
			t.Errorf("recvmsg says %v, %v, want %s", from, err, vip)
		}
	})
}

func (f socketFixture) udpUnconnectedStory(t *testing.T) {
	f.eachVIP(t, func(t *testing.T, vip netip.AddrPort, backends []netip.AddrPort) {
		reached := map[string]int{}
		for range 20 {
			c, err := net.ListenUDP(network("udp", vip), nil)
			if err != nil {
				t.Fatal(err)
			}
			deadline(c)
			mine := map[string]int{}
			for range 5 {
				who, from := ask(t, c, vip)
				mine[who]++
				if from != vip {
					t.Fatalf("the answer comes from %s, want %s", from, vip)
				}
			}
			if len(mine) != 1 {
				t.Errorf("one socket's datagrams were dealt out: %v", mine)
			}
			for who := range mine {
				reached[who]++
			}
			c.Close()
		}
		if len(reached) != len(backends) {
			t.Errorf("backends reached: %v, want all of %v", reached, backends)
		}
	})
}

// A dual-stack application names an IPv4 service as ::ffff:a.b.c.d.
func (f socketFixture) mappedStory(t *testing.T) {
	f.service(vip4, 1, 0, backends4)
	mapped := &unix.SockaddrInet6{Port: int(vip4.Port()), Addr: vip4.Addr().As16()}

	s := socket6(t, unix.SOCK_STREAM)
	if err := unix.Connect(s, mapped); err != nil {
		t.Fatalf("connect: %v", err)
	}
	if _, err := unix.Write(s, []byte("?")); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(s, make([]byte, 64)); err != nil || n == 0 {
		t.Errorf("read: %d, %v", n, err)
	}
	if peer, err := unix.Getpeername(s); err != nil || peer.(*unix.SockaddrInet6).Addr != mapped.Addr || peer.(*unix.SockaddrInet6).Port != mapped.Port {
		t.Errorf("getpeername says %+v, %v, want %+v", peer, err, mapped)
	}

	s = socket6(t, unix.SOCK_DGRAM)
	if err := unix.Sendto(s, []byte("?"), 0, mapped); err != nil {
		t.Fatalf("sendto: %v", err)
	}
	_, from, err := unix.Recvfrom(s, make([]byte, 64), 0)
	if err != nil || from.(*unix.SockaddrInet6).Addr != mapped.Addr || from.(*unix.SockaddrInet6).Port != mapped.Port {
		t.Errorf("recvfrom says %+v, %v, want %+v", from, err, mapped)
	}
}

func (f socketFixture) noBackendStory(t *testing.T) {
	empty4, empty6 := netip.MustParseAddrPort("10.96.0.81:80"), netip.MustParseAddrPort("[fd00:96::81]:80")
	f.service(empty4, 3, 0, nil)
	f.service(empty6, 4, 0, nil)
	for _, vip := range []netip.AddrPort{empty4, empty6} {
		for _, proto := range []string{"tcp", "udp"} {
			start := time.Now()
			_, err := net.DialTimeout(proto, vip.String(), 30*time.Second)
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s to %s after %s: %v, want refused", proto, vip, time.Since(start), err)
			}
		}
		c, err := net.ListenUDP(network("udp", vip), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteToUDPAddrPort([]byte("?"), vip); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("datagram to %s: %v, want refused", vip, err)
		}
		c.Close()
	}
	index := MetricIndex(ReasonNoBackend, HookSocket)
	if got := f.metrics()[index]; got != 6 {
		t.Errorf("counted %d refusals, want 6", got)
	}
}

func (f socketFixture) noServiceStory(t *testing.T) {
	for _, b := range []netip.AddrPort{backends4[0], backends6[0]} {
		c := dial(t, "tcp", b)
		hello(t, c)
		if got := peername(t, c); got != b {
			t.Errorf("getpeername says %s, want %s", got, b)
		}
	}
}

// Between two writes of the agent a slot may be missing: the first one serves.
func (f socketFixture) missingSlotStory(t *testing.T) {
	vip := netip.MustParseAddrPort("10.96.0.82:80")
	f.service(vip, 5, 0, backends4)
	f.must(f.maps.Slots.Delete(&SlotKey{Service: 5, Slot: 1}))
	for range 20 {
		c := dial(t, "tcp", vip)
		if got := hello(t, c); got != backends4[0].String() {
			t.Errorf("reached %s, want %s", got, backends4[0])
		}
		c.Close()
	}
}

func (f socketFixture) affinityStory(t *testing.T) {
	vip := netip.MustParseAddrPort("10.96.0.83:80")
	f.service(vip, 6, ServiceAffinity, backends4)
	first := ""
	for range 30 {
		c := dial(t, "tcp", vip)
		got := hello(t, c)
		c.Close()
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("reached %s, then %s", first, got)
		}
	}
	// The backend moves to another slot: the client stays with it.
	f.service(vip, 6, ServiceAffinity, []netip.AddrPort{backends4[1], backends4[0]})
	for range 10 {
		c := dial(t, "tcp", vip)
		if got := hello(t, c); got != first {
			t.Fatalf("reached %s, want %s, which only moved", got, first)
		}
		c.Close()
	}
	// It is gone: the client gets another one.
	left := backends4[0]
	if left.String() == first {
		left = backends4[1]
	}
	f.service(vip, 6, ServiceAffinity, []netip.AddrPort{left})
	c := dial(t, "tcp", vip)
	if got := hello(t, c); got != left.String() {
		t.Errorf("reached %s, want the one left, %s", got, left)
	}
}

// serveTCP and serveUDP answer each message with their own address.
func serveTCP(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					_, _ = io.WriteString(c, addr.String())
				}
			}()
		}
	}()
}

func serveUDP(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(addr.String()), from)
		}
	}()
}

func network(proto string, a netip.AddrPort) string {
	if a.Addr().Is4() {
		return proto + "4"
	}
	return proto + "6"
}

func deadline(c net.Conn) { _ = c.SetDeadline(time.Now().Add(30 * time.Second)) }

func dial(t *testing.T, proto string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(proto, to.String())
	if err != nil {
		t.Fatal(err)
	}
	deadline(c)
	t.Cleanup(func() { c.Close() })
	return c
}

// hello asks who is there.
func hello(t *testing.T, c net.Conn) string {
	t.Helper()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func ask(t *testing.T, c *net.UDPConn, to netip.AddrPort) (who string, from netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte("?"), to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), unmap(from)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// peername asks the kernel, not Go's memory of the dial.
func peername(t *testing.T, c net.Conn) netip.AddrPort {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sa unix.Sockaddr
	if cerr := raw.Control(func(fd uintptr) { sa, err = unix.Getpeername(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	t.Fatalf("peer %T", sa)
	return netip.AddrPort{}
}

func socket6(t *testing.T, typ int) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s) })
	tv := unix.NsecToTimeval((30 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return s
}
