// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// serveDatagrams has the node serve its pod's UDP port 99 at its node port.
func (tr *translated) serveDatagrams() *net.UDPConn {
	tr.t.Helper()
	inNS(tr.t, tr.ns, func() error {
		for _, rule := range []string{
			fmt.Sprintf("ip daddr %s udp dport %d meta mark set 0x4000 dnat ip to %s:99", tr.node[0], nodePort, tr.pod4),
			fmt.Sprintf("ip6 daddr %s udp dport %d meta mark set 0x4000 dnat ip6 to [%s]:99", tr.node[1], nodePort, tr.pod6),
		} {
			if out, err := exec.Command("nft", "add rule inet proxy translate "+rule).CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
		}
		return nil
	})
	var server *net.UDPConn
	inNS(tr.t, tr.podNS, func() (err error) {
		server, err = net.ListenUDP("udp", &net.UDPAddr{Port: 99})
		return err
	})
	tr.t.Cleanup(func() { server.Close() })
	return server
}

// received says whether a datagram comes within a second.
func received(server *net.UDPConn) bool {
	_ = server.SetReadDeadline(time.Now().Add(time.Second))
	_, _, err := server.ReadFromUDPAddrPort(make([]byte, 9000))
	return err == nil
}

// sendFrom sends a datagram from an address and port of a namespace.
func sendFrom(t *testing.T, ns netns.NsHandle, from, to netip.AddrPort) {
	t.Helper()
	inNS(t, ns, func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
}

// The kernel doesn't note where IPv6 datagrams came from that it fragments again. They are not the node's for that.
func TestFragmentsDontHideTheClient(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	server := tr.serveDatagrams()
	const port = 6000
	fragments := func(proto byte) {
		inNS(t, tr.outside, func() error {
			return sendFragmented(tr.client[1], tr.node[1], port, nodePort, proto)
		})
	}
	tr.rule(DirIngress, line{peer: blockIdentity, rule: 1})
	tr.isolate(DirIngress, 0)
	tr.bumpEpoch()
	fragments(unix.IPPROTO_UDP)
	if !received(server) {
		t.Fatal("an allowed client's fragments don't arrive")
	}
	tr.removeRules(DirIngress)
	tr.bumpEpoch()
	fragments(unix.IPPROTO_UDP)
	if received(server) {
		t.Error("a denied client's fragments pass as the node's")
	}
	sendFrom(t, tr.outside, netip.AddrPortFrom(tr.client[1], port), tr.at(1))
	if received(server) {
		t.Error("and after them its other datagrams")
	}
	answered := tr.count(ReasonHost, HookPodEgress)
	fragments(unix.IPPROTO_TCP)
	time.Sleep(300 * time.Millisecond)
	if tr.count(ReasonHost, HookPodEgress) != answered {
		t.Error("the pod answers a denied client's fragmented SYN")
	}
}

// Once tracking has forgotten a client, the next one may come with the same port.
func TestTheNextHiddenClientIsJudgedItself(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	server := tr.serveDatagrams()
	other := netip.MustParseAddr("192.0.2.8")
	tr.block("192.0.2.8/32", remoteIdentity) // the narrowest CIDR around it: not allowed
	inNS(t, tr.ns, func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("1"), 0o600)
	})
	inNS(t, tr.outside, func() error {
		l, err := netlink.LinkByName("up")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, addrOf(other))
	})
	tr.isolate(DirIngress, 0)
	tr.rule(DirIngress, line{peer: blockIdentity, rule: 7})
	tr.bumpEpoch()
	for _, s := range []struct {
		from netip.AddrPort
		want bool
	}{
		{netip.AddrPortFrom(tr.client[0], 5555), true},
		{netip.AddrPortFrom(other, 5556), false},
		{netip.AddrPortFrom(other, 5555), false},
		{netip.AddrPortFrom(tr.client[0], 5555), true},
	} {
		sendFrom(t, tr.outside, s.from, tr.at(0))
		if got := received(server); got != s.want {
			t.Errorf("a datagram from %s: passes %t, want %t", s.from, got, s.want)
		}
		time.Sleep(3 * time.Second) // until tracking has forgotten it
	}
}

// What the node sends and what it passes on may have the same address and port, one after the other.
func TestForwardedPacketsAreNotOfTheNodesFlow(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.bumpEpoch()
		forwarded := func(p *packetSpec) result {
			return f.run(f.progs.PodIngress, p.bytes(t), skb{IngressIfindex: 1})
		}
		for i, build := range []func(sport uint16) *packetSpec{
			func(sport uint16) *packetSpec { return udp(c.host, sport, c.pod, 53) },
			func(sport uint16) *packetSpec { return tcp(c.host, sport, c.pod, 80, "S") },
		} {
			sport := uint16(4000 + 10*i)
			forwarded(build(sport)).drops(t, "a hidden client", HookPodIngress, ReasonDefaultDenied)
			sport++
			f.ingress(build(sport).bytes(t)).passes(t, "the node", HookPodIngress, ReasonHost)
			forwarded(build(sport)).drops(t, "a hidden client on the node's port", HookPodIngress, ReasonDefaultDenied)
			f.ingress(build(sport).bytes(t)).passes(t, "the node again", HookPodIngress, ReasonHost)
		}
		// And the other way round: the node's probe is not dropped for a client that was.
		f.rule(DirIngress, line{rule: 1})
		f.bumpEpoch()
		forwarded(udp(c.host, 5000, c.pod, 53)).passes(t, "everybody is allowed", HookPodIngress, ReasonForwarded)
		f.removeRules(DirIngress)
		f.bumpEpoch()
		forwarded(udp(c.host, 5000, c.pod, 53)).drops(t, "nobody is", HookPodIngress, ReasonDefaultDenied)
		f.ingress(udp(c.host, 5000, c.pod, 53).bytes(t)).passes(t, "the node on that port", HookPodIngress, ReasonHost)
	})
}

// A verdict about nobody known is current as long as any other.
func TestFlowsOfUnknownClientsStayCurrent(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.must(f.maps.AddressEpochs.Put(uint32(0), uint32(7)))
		t.Cleanup(func() { f.must(f.maps.AddressEpochs.Put(uint32(0), uint32(0))) })
		asked := tcp(c.host, 4000, c.pod, 80, "S")
		f.run(f.progs.PodIngress, asked.bytes(t), skb{IngressIfindex: 1}).passes(t, "no policy", HookPodIngress, ReasonForwarded)
		f.egress(unreachable(t, c.pod, c.host, asked).bytes(t)).passes(t, "an error about it", HookPodEgress, ReasonRelated)
	})
}

// sendFragmented sends a datagram, or a SYN with data, in two fragments, the first with destination options before the
// fragment header. Put together, the second doesn't fit behind that header, and the node that forwards it copies it
// into fragments of its own.
func sendFragmented(from, to netip.Addr, sport, dport uint16, proto byte) error {
	const first, second = 800, 1448
	payload := make([]byte, first+second)
	binary.BigEndian.PutUint16(payload, sport)
	binary.BigEndian.PutUint16(payload[2:], dport)
	check := 6
	if proto == unix.IPPROTO_TCP {
		check = 16
		payload[12], payload[13] = 5<<4, 2 // SYN
		binary.BigEndian.PutUint16(payload[14:], 65000)
	} else {
		binary.BigEndian.PutUint16(payload[4:], uint16(len(payload)))
	}
	src, dst := from.As16(), to.As16()
	sum := uint32(len(payload)) + uint32(proto)
	for _, b := range [][]byte{src[:], dst[:], payload} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(payload[check:], ^uint16(sum))

	options := make([]byte, 64)
	options[0], options[1], options[2], options[3] = unix.IPPROTO_FRAGMENT, 7, 0x1e, 60 // an option that is skipped
	ip := func(next byte, parts ...[]byte) []byte {
		payload := bytes.Join(parts, nil)
		h := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
		return slices.Concat(h, []byte{next, 64}, src[:], dst[:], payload)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	id := []byte{byte(time.Now().UnixNano()), 2, 3, proto}
	for _, p := range [][]byte{
		ip(unix.IPPROTO_DSTOPTS, options, append([]byte{proto, 0, 0, 1}, id...), payload[:first]),
		ip(unix.IPPROTO_FRAGMENT, append([]byte{proto, 0, first >> 8, first & 0xff}, id...), payload[first:]),
	} {
		if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet6{Addr: dst}); err != nil {
			return fmt.Errorf("send fragment: %w", err)
		}
	}
	return nil
}
