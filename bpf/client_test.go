// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A translated node serves its pod's port 80 at its own port 30080, as kube-proxy does with a NodePort: it replaces the
// destination and hides the client behind an address of its own. outside is a host beyond the node's uplink.
type translated struct {
	*netNode
	outside netns.NsHandle
	// By family: the node's address on the uplink, and the outside's.
	node, client [2]netip.Addr
}

const nodePort = 30080

func newTranslated(t *testing.T, n *netNode) *translated {
	t.Helper()
	tr := &translated{
		netNode: n, outside: newNS(t),
		node:   [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		client: [2]netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
	}
	inNS(t, n.ns, tr.uplink)
	inNS(t, tr.outside, func() error { return addressLink("up", tr.client[:], tr.node[:]) })
	for _, a := range append(tr.node[:], gateway(n.pod4), gateway(n.pod6)) {
		n.address(a, Remote{Identity: IdentityHost, Flags: RemoteHost})
	}
	serveName(t, n.podNS, ":80")
	return tr
}

func (tr *translated) uplink() error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "up", PeerNamespace: netlink.NsFd(tr.outside)}
	veth.Name = "up"
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add uplink: %w", err)
	}
	if err := addressLink("up", tr.node[:], nil); err != nil {
		return err
	}
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0o600); err != nil {
			return fmt.Errorf("turn on forwarding: %w", err)
		}
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`table inet proxy {
	chain translate {
		ip daddr { %[1]s, %[3]s } tcp dport %[7]d meta mark set 0x4000 dnat ip to %[5]s:80
		ip6 daddr { %[2]s, %[4]s } tcp dport %[7]d meta mark set 0x4000 dnat ip6 to [%[6]s]:80
	}
	chain prerouting { type nat hook prerouting priority dstnat; jump translate; }
	chain output { type nat hook output priority -100; jump translate; }
	chain postrouting { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }
}`, tr.node[0], tr.node[1], gateway(tr.pod4), gateway(tr.pod6), tr.pod4, tr.pod6, nodePort))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// addressLink raises a link, gives it addresses and, if there are any, default routes.
func addressLink(name string, addrs, gateways []netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("raise %s: %w", name, err)
	}
	for _, a := range addrs {
		if err := netlink.AddrAdd(l, addrOf(a)); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	for _, gw := range gateways {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("add default route by %s: %w", gw, err)
		}
	}
	return nil
}

// serveName answers each line of a client with one of its own.
func serveName(t *testing.T, ns netns.NsHandle, addr string) {
	t.Helper()
	inNS(t, ns, func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
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
					for lines := bufio.NewScanner(c); lines.Scan(); {
						fmt.Fprintln(c, "got", lines.Text())
					}
				}()
			}
		}()
		return nil
	})
}

// call opens a connection and sends a line. It reports whether the answer came.
func call(t *testing.T, from netns.NsHandle, to netip.AddrPort) (c net.Conn, ok bool) {
	t.Helper()
	inNS(t, from, func() error {
		var err error
		// A second for a retransmission of the SYN: what passes late passes.
		if c, err = net.DialTimeout("tcp", to.String(), 1300*time.Millisecond); err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				return fmt.Errorf("call %s: %w", to, err)
			}
			return nil
		}
		t.Cleanup(func() { c.Close() })
		ok = sendLine(c)
		return nil
	})
	return c, ok
}

func sendLine(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(2500 * time.Millisecond))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && line == "got hello\n"
}

func (tr *translated) at(family int) netip.AddrPort {
	return netip.AddrPortFrom(tr.node[family], nodePort)
}

// Behind a NodePort policy sees the client, not the node whose address it bears at the pod.
func TestPolicySeesTheClientOfANodePort(t *testing.T) {
	for family, name := range []string{"ip4", "ip6"} {
		t.Run(name, func(t *testing.T) {
			tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
			expect := func(what string, from netns.NsHandle, to netip.AddrPort, want bool) net.Conn {
				t.Helper()
				c, ok := call(t, from, to)
				if ok != want {
					t.Errorf("%s: passes %t, want %t", what, ok, want)
				}
				return c
			}
			pod := netip.AddrPortFrom([]netip.Addr{tr.pod4, tr.pod6}[family], 80)
			expect("no policy", tr.outside, tr.at(family), true)

			tr.isolate(DirIngress, 0)
			tr.bumpEpoch()
			tr.events()
			expect("isolated: the world through the NodePort", tr.outside, tr.at(family), false)
			if e := tr.events(); len(e) == 0 || e[0].SrcIdentity != IdentityWorld || e[0].Reason != ReasonDefaultDenied {
				t.Errorf("events %+v, want the world denied by default", e)
			}
			// What the client is denied is not remembered against the node, which has the same address.
			expect("isolated: the node itself", tr.ns, pod, true)
			expect("isolated: the node itself, through the NodePort", tr.ns, tr.at(family), true)
			expect("isolated: the pod itself, through the NodePort", tr.podNS, tr.at(family), true)

			tr.rule(DirIngress, line{peer: blockIdentity, proto: 6, from: 80, rule: 7})
			tr.bumpEpoch()
			c := expect("the client is allowed", tr.outside, tr.at(family), true)

			// A running connection ends with its permission.
			tr.removeRules(DirIngress)
			tr.bumpEpoch()
			if sendLine(c) {
				t.Error("a connection goes on that is no longer allowed")
			}

			// A deny is about the client too.
			tr.policies[DirIngress].flags = 0
			tr.rule(DirIngress, line{peer: blockIdentity, verdict: VerdictDeny, rule: 8})
			tr.bumpEpoch()
			expect("the client is denied", tr.outside, tr.at(family), false)
			expect("the node is not", tr.ns, pod, true)
		})
	}
}

// A pod of another cluster that comes through the tunnel to a NodePort is judged as that pod. In the clear it is forged.
func TestPolicySeesThePodBehindANodePort(t *testing.T) {
	east, west := twoNodes(t, tcx)
	tr := newTranslated(t, west)
	for _, zero := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		west.leadsTo(netip.AddrPortFrom(zero, nodePort), 1, ServicePolicyOnly)
	}
	for _, a := range tr.node {
		east.address(a, Remote{Identity: remoteIdentity, Peer: remotePeer, Flags: RemoteTunnel | RemoteRequireTunnel | RemoteNode})
	}
	west.routeInto(east)
	for family := range tr.node {
		west.policies[DirIngress] = &testPolicy{}
		west.isolate(DirIngress, 0)
		west.bumpEpoch()
		if _, ok := call(t, east.podNS, tr.at(family)); ok {
			t.Errorf("family %d: an isolated pod answers another cluster's pod through a NodePort", family)
		}
		west.rule(DirIngress, line{peer: remoteIdentity, proto: 6, from: 80, rule: 7})
		west.bumpEpoch()
		if _, ok := call(t, east.podNS, tr.at(family)); !ok {
			t.Errorf("family %d: a pod that is allowed gets no answer through a NodePort", family)
		}
	}
	// The outside takes that pod's address.
	inNS(t, west.ns, func() error {
		for _, name := range []string{"all", "up", "tun0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	before := west.count(ReasonPlaintext, HookPodIngress)
	inNS(t, tr.outside, func() error {
		l, err := netlink.LinkByName("up")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: east.pod4.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
			return err
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: east.pod4.AsSlice()}, Timeout: 1500 * time.Millisecond}
		if c, err := d.Dial("tcp", tr.at(0).String()); err == nil {
			c.Close()
			return errors.New("a forged client got through")
		}
		return nil
	})
	if west.count(ReasonPlaintext, HookPodIngress) == before {
		t.Error("the forged client was not dropped for being in the clear")
	}
}

// routeInto leads the node's own packets for the other one's pod into the tunnel.
func (n *netNode) routeInto(other *netNode) {
	inNS(n.t, n.ns, func() error {
		tun, err := netlink.LinkByName("tun0")
		if err != nil {
			return err
		}
		for _, pod := range []netip.Addr{other.pod4, other.pod6} {
			dst := &net.IPNet{IP: pod.AsSlice(), Mask: net.CIDRMask(pod.BitLen(), pod.BitLen())}
			route := &netlink.Route{LinkIndex: tun.Attrs().Index, Dst: dst, Scope: unix.RT_SCOPE_LINK, Src: gateway(n.podOf(pod)).AsSlice()}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("add route to %s: %w", pod, err)
			}
		}
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0o600)
	})
}

// podOf is the node's pod's address of a family.
func (n *netNode) podOf(family netip.Addr) netip.Addr {
	if family.Is4() {
		return n.pod4
	}
	return n.pod6
}

// The node's own ports are closed to what comes out of the tunnel; answers to what the node asked are not.
func TestTheNodeBehindTheTunnelIsClosed(t *testing.T) {
	east, west := twoNodes(t, tcx)
	west.routeInto(east)
	for _, n := range []*netNode{east, west} {
		for _, a := range []netip.Addr{gateway(west.pod4), gateway(west.pod6)} {
			r := Remote{Identity: remoteIdentity, Peer: remotePeer, Flags: RemoteTunnel | RemoteRequireTunnel | RemoteNode}
			if n == west {
				r = Remote{Identity: IdentityHost, Flags: RemoteHost}
			}
			n.address(a, r)
		}
	}
	serveName(t, west.ns, ":10250")
	serveName(t, east.podNS, ":80")
	for _, to := range []netip.Addr{west.pod4, west.pod6} {
		if _, ok := call(t, east.podNS, netip.AddrPortFrom(gateway(to), 10250)); ok {
			t.Errorf("another cluster's pod reaches a port of the node at %s", gateway(to))
		}
	}
	if west.count(ReasonHostClosed, HookTunnelIngress) == 0 {
		t.Error("nothing was counted as closed")
	}
	for _, to := range []netip.Addr{east.pod4, east.pod6} {
		if _, ok := call(t, west.ns, netip.AddrPortFrom(to, 80)); !ok {
			t.Errorf("the node gets no answer from %s", to)
		}
		askUDP(t, west.ns, east.podNS, to)
	}
}

// askUDP sends a datagram from one namespace and wants it back from the other.
func askUDP(t *testing.T, from, at netns.NsHandle, to netip.Addr) {
	t.Helper()
	var server *net.UDPConn
	inNS(t, at, func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 99)))
		return err
	})
	defer server.Close()
	go func() {
		buf := make([]byte, 100)
		n, peer, err := server.ReadFromUDPAddrPort(buf)
		if err == nil {
			_, _ = server.WriteToUDPAddrPort(buf[:n], peer)
		}
	}()
	inNS(t, from, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(to, 99).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		if _, err := c.Read(make([]byte, 10)); err != nil {
			return fmt.Errorf("ask %s: %w", to, err)
		}
		return nil
	})
}

// Where nobody knows the client (the kernel tracks no such connection), it could be anybody.
func TestHiddenClientsAreUnknown(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		passed := func(sport uint16) result {
			return f.run(f.progs.PodIngress, tcp(c.host, sport, c.pod, 80, "S").bytes(t), skb{IngressIfindex: 1})
		}
		passed(4000).passes(t, "no policy", HookPodIngress, ReasonForwarded)
		f.rule(DirIngress, line{peer: friendIdentity, verdict: VerdictDeny, rule: 1})
		f.bumpEpoch()
		passed(4001).drops(t, "a deny of somebody", HookPodIngress, ReasonPolicyDenied)
		f.ingress(tcp(c.host, 4001, c.pod, 80, "S").bytes(t)).passes(t, "the node itself", HookPodIngress, ReasonHost)
		f.removeRules(DirIngress)
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 2})
		f.bumpEpoch()
		passed(4002).drops(t, "an allow of somebody", HookPodIngress, ReasonDefaultDenied)
		f.rule(DirIngress, line{rule: 3})
		f.bumpEpoch()
		passed(4003).passes(t, "an allow of everybody", HookPodIngress, ReasonForwarded)
	})
}

// forget empties the table of flows, as a flood of others does, or an agent that comes new.
func (n *netNode) forget() {
	n.t.Helper()
	for _, m := range []*ebpf.Map{n.maps.CT4, n.maps.CT6} {
		key := make([]byte, m.KeySize())
		for m.NextKey(nil, &key) == nil {
			n.must(m.Delete(key))
		}
	}
}

// Of a connection that the table has lost, tracking knows who opened it: it goes on if that side may, and only then.
func TestTrackingKnowsWhoOpenedALostFlow(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	serveName(t, tr.outside, ":81")
	for family := range tr.node {
		tr.policies[DirIngress] = &testPolicy{}
		tr.publish(podIdentity, DirIngress)
		tr.bumpEpoch()
		pod := netip.AddrPortFrom([]netip.Addr{tr.pod4, tr.pod6}[family], 80)
		out, ok := call(t, tr.podNS, netip.AddrPortFrom(tr.client[family], 81))
		in, ok2 := call(t, tr.outside, pod)
		if !ok || !ok2 {
			t.Fatalf("family %d: connections without policy: %t, %t", family, ok, ok2)
		}
		tr.isolate(DirIngress, 0)
		tr.bumpEpoch()
		tr.forget()
		if !sendLine(out) {
			t.Errorf("family %d: the pod's own connection ends", family)
		}
		if sendLine(in) {
			t.Errorf("family %d: a connection to the pod goes on that is no longer allowed", family)
		}
	}
}
