// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tests of a review: each shows a fault and fails until it is mended.

// A solicitation claims its source (and who asks from ::, its target): neighbours write the sender's hardware address beside it.
func TestReviewSolicitationsClaimNobodyElsesLinkLocal(t *testing.T) {
	f := newFixture(t)
	f.must(f.maps.Ifaces.Put(uint32(podIfindex), &Iface{Identity: podIdentity, Flags: IfaceIP4 | IfaceIP6 | IfaceBridged,
		IP4: cast4.pod.As4(), IP6: cast6.pod.As16(), PodMAC: podMAC, HostMAC: hostMAC}))
	theirs := netip.MustParseAddr("fe80::ff:fe00:11") // made of 02:00:00:00:00:11
	f.local(theirs, Local{Ifindex: 99})
	f.local(cast6.other, Local{Ifindex: 99})
	group := netip.MustParseAddr("ff02::1:ff00:1")
	with := func(from netip.Addr, typ uint8, target netip.Addr) []byte {
		p := neighbour(from, group, typ, target)
		p.payload = append(p.payload, 1, 1, 2, 0, 0, 0, 0, 0x10) // source link-layer address: ours
		return p.bytes(t)
	}
	f.egress(with(theirs, layers.ICMPv6TypeNeighborSolicitation, cast6.host)).
		drops(t, "asks as another pod", HookPodEgress, ReasonInvalidSource)
	f.egress(with(theirs, layers.ICMPv6TypeRouterSolicitation, cast6.host)).
		drops(t, "asks for routers as another pod", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(netip.IPv6Unspecified(), group, layers.ICMPv6TypeNeighborSolicitation, cast6.other).bytes(t)).
		drops(t, "claims another pod's address while that one asks whether it is free", HookPodEgress, ReasonInvalidSource)
}

// Fragments that policy denies don't push out those of others.
func TestReviewDeniedFragmentsPushOutNobody(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, proto: 17, from: 53, rule: 1})
		f.bumpEpoch()
		f.ingress(udp(c.friend, 4000, c.pod, 53).data(make([]byte, 64)).fragment(7, 0, true).bytes(t)).
			passes(t, "first fragment of who is allowed", HookPodIngress, ReasonForwarded)
		for id := range uint32(2000) {
			r := f.ingress(udp(c.world, 4000, c.pod, 53).data(make([]byte, 64)).fragment(id, 0, true).bytes(t))
			if r.action != tcActDrop {
				t.Fatal("the world is allowed")
			}
		}
		f.ingress(udp(c.friend, 4000, c.pod, 53).data(make([]byte, 64)).fragment(7, 72, false).bytes(t)).
			passes(t, "the second fragment, after a flood of what is denied", HookPodIngress, ReasonForwarded)
	})
}

// Where nobody knows what a service leads to, nobody knows the port either: the service's is not the backends'.
func TestReviewUnknownBackendsHaveUnknownPorts(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{proto: 6, from: 443, rule: 1}) // everybody, on 443
		f.bumpEpoch()
		try := func(sport, dport uint16) result { return f.egress(tcp(c.pod, sport, c.service, dport, "S").bytes(t)) }
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0, slices.Repeat([]netip.AddrPort{netip.AddrPortFrom(c.friend, 22)}, 256)...)
		try(4000, 443).drops(t, "256 backends, on a port that nobody is allowed", HookPodEgress, ReasonDefaultDenied)
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0, slices.Repeat([]netip.AddrPort{netip.AddrPortFrom(c.friend, 22)}, 257)...)
		try(4001, 443).drops(t, "257 backends, on a port that nobody is allowed", HookPodEgress, ReasonDefaultDenied)
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0)
		try(4002, 443).drops(t, "no backend that is ready; kube-proxy takes one that terminates", HookPodEgress, ReasonDefaultDenied)
		f.removeRules(DirEgress)
		f.policies[DirEgress].flags = 0
		f.rule(DirEgress, line{proto: 6, from: 22, verdict: VerdictDeny, rule: 2})
		f.bumpEpoch()
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0, slices.Repeat([]netip.AddrPort{netip.AddrPortFrom(c.friend, 22)}, 257)...)
		try(4003, 443).drops(t, "257 backends, on a port that is denied", HookPodEgress, ReasonPolicyDenied)
	})
}

// A flow to a load balancer's address that was judged before the agent knew the service.
func TestReviewServicesThatComeLateAreJudged(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: IdentityWorld, rule: 1})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.world, 443, "S").bytes(t)).passes(t, "the world", HookPodEgress, ReasonForwarded)
		f.leadsTo(netip.AddrPortFrom(c.world, 443), 7, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 8443))
		f.egress(tcp(c.pod, 4001, c.world, 443, "S").bytes(t)).drops(t, "a new flow, to a pod that isn't allowed", HookPodEgress, ReasonDefaultDenied)
		f.bumpEpoch()
		time.Sleep(4500 * time.Millisecond)
		f.egress(tcp(c.pod, 4000, c.world, 443, "A").bytes(t)).drops(t, "the old flow, four seconds later", HookPodEgress, ReasonDefaultDenied)
	})
}

// A SYN may be translated anew: it is a new connection to a service, whatever ran over its ports before.
func TestReviewSYNsToServicesAreNewFlows(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: friendIdentity, rule: 1})
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0, netip.AddrPortFrom(c.friend, 8443))
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.service, 443, "S").bytes(t)).passes(t, "to who is allowed", HookPodEgress, ReasonService)
		f.egress(tcp(c.pod, 4000, c.service, 443, "A").bytes(t)).passes(t, "goes on", HookPodEgress, ReasonService)
		f.egress(tcp(c.pod, 4000, c.service, 443, "R").bytes(t)).passes(t, "ends, for connection tracking", HookPodEgress, ReasonService)
		f.egress(tcp(c.pod, 4000, c.service, 443, "A").bytes(t)).passes(t, "doesn't end, for us", HookPodEgress, ReasonService)
		f.leadsTo(netip.AddrPortFrom(c.service, 443), 7, 0, netip.AddrPortFrom(c.world, 8443))
		f.egress(tcp(c.pod, 4000, c.service, 443, "S").bytes(t)).drops(t, "anew, to who isn't", HookPodEgress, ReasonDefaultDenied)
	})
}

// What another pod on the link sends from a link-local address is not the world's.
func TestReviewLinkLocalSendersAreNotTheWorld(t *testing.T) {
	f := newFixture(t)
	f.isolate(DirIngress, 0)
	f.rule(DirIngress, line{peer: IdentityWorld, rule: 1})
	f.bumpEpoch()
	p := base(netip.MustParseAddr("fe80::10"), netip.MustParseAddr("ff02::16"))
	p.proto, p.hopLimit, p.payload = layers.IPProtocolICMPv6, 1, make([]byte, 700)
	p.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2, 0)}
	f.egress(p.bytes(t)).passes(t, "a report leaves a pod without policy", HookPodEgress, ReasonNeighbor)
	f.ingress(p.bytes(t)).drops(t, "and comes to one that allows the world", HookPodIngress, ReasonDefaultDenied)
}

// Loopback's addresses are the node's: kube-proxy sets route_localnet, with which packets from pods to them are delivered.
func TestReviewLoopbackIsTheNode(t *testing.T) {
	f, c := newFixture(t), cast4
	f.isolate(DirEgress, 0)
	f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10248, verdict: VerdictDeny, rule: 1})
	f.rule(DirEgress, line{peer: IdentityWorld, rule: 2})
	f.bumpEpoch()
	f.egress(tcp(c.pod, 4000, c.loopback(), 10248, "S").bytes(t)).drops(t, "the node's loopback", HookPodEgress, ReasonPolicyDenied)
}

// A pod that gets the address of one that is gone gets its flows as well.
func TestReviewFlowsEndWithTheirPod(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		const next = 1001
		f.egress(udp(c.pod, 4000, c.world, 443).bytes(t)).passes(t, "a pod opens a flow", HookPodEgress, ReasonForwarded)
		f.class(next, 100)
		f.policies[DirIngress].flags = SubjectIsolated
		f.publish(next, DirIngress)
		f.publish(next, DirEgress)
		f.must(f.maps.Ifaces.Put(uint32(podIfindex), &Iface{Identity: next, Flags: IfaceIP4 | IfaceIP6,
			IP4: cast4.pod.As4(), IP6: cast6.pod.As16(), PodMAC: podMAC, HostMAC: hostMAC}))
		f.address(c.pod, Remote{Identity: next})
		f.bumpEpoch()
		f.ingress(udp(c.world, 4001, c.pod, 443).bytes(t)).drops(t, "the next pod is isolated", HookPodIngress, ReasonDefaultDenied)
		f.ingress(udp(c.world, 443, c.pod, 4000).bytes(t)).drops(t, "and never asked for this", HookPodIngress, ReasonDefaultDenied)
	})
}

// A late checksum must not be written into a fragment header: whether a fragment has ports, and whose, is judged by it.
func TestReviewChecksumsInFragmentHeaders(t *testing.T) {
	n := newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10")
	n.isolate(DirEgress, 0)
	n.rule(DirEgress, line{peer: friendIdentity, proto: 17, from: 53, rule: 1})
	n.bumpEpoch()
	first := udp(n.pod6, 4000, cast6.friend, 53).data(make([]byte, 64)).fragment(7, 0, true).bytes(t)
	later := udp(n.pod6, 4000, cast6.friend, 53).data(make([]byte, 64)).fragment(7, 72, false).bytes(t)
	// Hop-by-hop options before the fragment header.
	later = insert(later, ip6HeaderEnd, []byte{44, 0, 1, 4, 0, 0, 0, 0})
	later[ethHeaderLength+6] = 0
	binary.BigEndian.PutUint16(later[ethHeaderLength+4:], uint16(len(later)-ip6HeaderEnd))
	offset := ip6HeaderEnd + 8 + 2 // where in the datagram the fragment belongs: 0 would make it a first one, with ports of its own
	malformed, forwarded := MetricIndex(ReasonMalformed, HookPodEgress), MetricIndex(ReasonForwarded, HookPodEgress)
	inNS(t, n.podNS, func() error { return sendUnsummed(first, ip6HeaderEnd+8, 6) })
	before := n.metrics()
	if before[forwarded] == 0 {
		t.Fatal("the first fragment doesn't pass")
	}
	inNS(t, n.podNS, func() error { return sendUnsummed(later, offset-2, 2) })
	if after := n.metrics(); after[forwarded] != before[forwarded] || after[malformed] == before[malformed] {
		t.Errorf("a fragment passed whose offset is still to be written: %d forwarded, %d malformed",
			after[forwarded]-before[forwarded], after[malformed]-before[malformed])
	}
}

// Who takes the node's address, beyond the node, is not the node. IPv6 has no filter for that.
func TestReviewForgedNodesAreNotTheNode(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	tr.isolate(DirIngress, 0)
	tr.bumpEpoch()
	var mac []byte
	inNS(t, tr.ns, func() error {
		l, err := netlink.LinkByName("up")
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	frame := udp(tr.node[1], 4000, tr.pod6, 5353).bytes(t)
	copy(frame, mac)
	serveName(t, tr.podNS, ":82")
	if _, ok := call(t, tr.ns, netip.AddrPortFrom(tr.pod6, 82)); !ok { // so the node knows the pod's hardware address
		t.Fatal("the node doesn't reach its pod")
	}
	before := tr.count(ReasonHost, HookPodIngress)
	inNS(t, tr.outside, func() error { return sendFrame("up", frame) })
	time.Sleep(500 * time.Millisecond)
	if n := tr.count(ReasonHost, HookPodIngress) - before; n != 0 {
		t.Errorf("%d packets from outside reached an isolated pod as the node's", n)
	}
}

func sendFrame(device string, frame []byte) error {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index})
}

// A pod must not hand packets to the node's overlay: without NET_RAW it sends from any address to anybody.
func TestReviewPodsDontSpeakToTheOverlay(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	tr.isolate(DirIngress, 0)
	tr.rule(DirIngress, line{peer: friendIdentity, rule: 1})
	tr.isolate(DirEgress, 0)
	tr.bumpEpoch()
	mac := [6]byte{2, 0, 0, 0, 0, 0x99}
	inNS(t, tr.ns, func() error { // as flannel makes it
		vx := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: 1, Port: 8472}
		vx.Name, vx.HardwareAddr = "flannel.1", mac[:]
		if err := netlink.LinkAdd(vx); err != nil {
			return fmt.Errorf("add vxlan: %w", err)
		}
		for _, name := range []string{"all", "default", "flannel.1"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0o600); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(vx)
	})
	inner := udp(cast4.friend, 4000, tr.pod4, 53).bytes(t) // to another pod of the node, and this is the only one here
	copy(inner, mac[:])
	before := tr.count(ReasonForwarded, HookPodIngress)
	inNS(t, tr.podNS, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // an ordinary socket
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		header := []byte{8, 0, 0, 0, 0, 0, 1, 0}
		return unix.Sendto(fd, append(header, inner...), 0, &unix.SockaddrInet4{Port: 8472, Addr: gateway(tr.pod4).As4()})
	})
	time.Sleep(200 * time.Millisecond)
	if n := tr.count(ReasonForwarded, HookPodIngress) - before; n != 0 {
		t.Errorf("%d packets of an isolated pod reached a pod, in the name of one that is allowed there", n)
	}
}

// Headers lie within what the IP header calls the packet. What is behind it, the receiver cuts off.
func TestReviewHeadersBehindTheEndOfThePacket(t *testing.T) {
	f := newFixture(t)
	f.tcp22Denied()
	// IPv6: the first fragment ends before the ports; those of what follows it in the frame are shown to us, those of the next fragment
	// to the receiver (RFC 7112 forbids it to take them; Linux before 5.10.x and others do).
	c := cast6
	first := udp(c.pod, 4000, c.friend, 53).data(make([]byte, 64)).fragment(7, 0, true).bytes(t)
	first = insert(first, ip6HeaderEnd+8, []byte{17, 0, 1, 4, 0, 0, 0, 0}) // destination options, then UDP
	first[ip6HeaderEnd] = ip6Destination
	binary.BigEndian.PutUint16(first[ethHeaderLength+4:], 16) // the fragment's header and the options
	f.egress(first).drops(t, "IPv6, ports behind the end", HookPodEgress, ReasonMalformed)

	// IPv4: the first fragment has eight bytes of TCP's header, and the flags are in the next.
	c = cast4
	f.egress(tcp(c.pod, 4000, c.friend, 443, "S").bytes(t)).passes(t, "the pod opens a connection", HookPodEgress, ReasonForwarded)
	syn := tcp(c.friend, 443, c.pod, 4000, "S").bytes(t)
	f.ingress(syn).drops(t, "the other side opens one over its ports", HookPodIngress, ReasonDefaultDenied)
	hidden := tcp(c.friend, 443, c.pod, 4000, "A").fragment(9, 0, true).bytes(t)
	binary.BigEndian.PutUint16(hidden[ethHeaderLength+2:], 28)
	f.ingress(hidden).drops(t, "IPv4, flags behind the end", HookPodIngress, ReasonMalformed)
}

func (f *fixture) tcp22Denied() {
	f.isolate(DirIngress, 0)
	f.isolate(DirEgress, 0)
	f.rule(DirEgress, line{peer: friendIdentity, proto: 17, from: 53, rule: 1})
	f.rule(DirEgress, line{peer: friendIdentity, proto: 6, from: 443, rule: 2})
	f.bumpEpoch()
}

// Who takes the pod's own address, beyond the node, is not the pod that calls itself.
func TestReviewForgedSelvesAreNotThePod(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	tr.isolate(DirIngress, 0)
	tr.bumpEpoch()
	var mac []byte
	inNS(t, tr.ns, func() error {
		l, err := netlink.LinkByName("up")
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	frame := tcp(tr.pod6, 4000, tr.node[1], nodePort, "S").bytes(t)
	copy(frame, mac)
	before := tr.count(ReasonForwarded, HookPodIngress)
	inNS(t, tr.outside, func() error { return sendFrame("up", frame) })
	time.Sleep(1500 * time.Millisecond)
	if n := tr.count(ReasonForwarded, HookPodIngress) - before; n != 0 {
		t.Errorf("%d packets from outside reached an isolated pod as its own", n)
	}
}

// A pod of this node sends from its interface. What bears its address and came another way is forged.
func TestReviewForgedLocalPodsAreNotThem(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 1})
		f.bumpEpoch()
		f.local(c.friend, Local{Ifindex: 99}) // friend is a pod of this node
		const uplink = 1
		r := f.run(f.progs.PodIngress, udp(c.friend, 4000, c.pod, 53).bytes(t), skb{IngressIfindex: uplink})
		if r.action != tcActDrop {
			t.Error("a datagram from the uplink passes as one of a pod of this node")
		}
	})
}
