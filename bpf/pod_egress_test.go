// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestEgressPassesAndTunnels(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "same cluster", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4000, c.world, 443, "S").bytes(t)).passes(t, "world", HookPodEgress, ReasonForwarded)
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).passes(t, "own node", HookPodEgress, ReasonHost)
		f.egress(udp(c.pod, 4000, c.service, 53).bytes(t)).passes(t, "service address", HookPodEgress, ReasonService)
		f.egress(tcp(c.pod, 4000, c.remote, 80, "S").bytes(t)).tunnels(t, "other cluster")
		f.egress(udp(c.pod, 4000, c.remote, 80).bytes(t)).tunnels(t, "other cluster, UDP")
		f.egress(echo(c.pod, c.remote, 9, false).bytes(t)).tunnels(t, "other cluster, ping")
	})
}

func TestEgressSourceMustBeThePods(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		for _, to := range []netip.Addr{c.friend, c.remote, c.host, c.world} {
			f.egress(tcp(c.other, 4000, to, 80, "S").bytes(t)).drops(t, "forged source", HookPodEgress, ReasonInvalidSource)
		}
		e := f.events()
		if len(e) == 0 || e[0].Reason != ReasonInvalidSource || e[0].SrcIdentity != podIdentity {
			t.Errorf("events = %+v, want the forgery told", e)
		}
	})
}

func TestEgressLinkLocalSourceOnlyForNeighbours(t *testing.T) {
	f := newFixture(t)
	ll := netip.MustParseAddr("fe80::10")
	f.egress(udp(ll, 5353, netip.MustParseAddr("ff02::fb"), 5353).bytes(t)).
		drops(t, "mDNS from link-local", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(ll, cast6.host, layers.ICMPv6TypeNeighborSolicitation, cast6.host).bytes(t)).
		passes(t, "solicitation", HookPodEgress, ReasonNeighbor)
	f.egress(neighbour(cast6.pod, cast6.host, layers.ICMPv6TypeNeighborAdvertisement, cast6.pod).bytes(t)).
		passes(t, "own advertisement", HookPodEgress, ReasonNeighbor)
	f.egress(neighbour(cast6.pod, cast6.host, layers.ICMPv6TypeNeighborAdvertisement, cast6.other).bytes(t)).
		drops(t, "advertising somebody else", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(ll, cast6.host, layers.ICMPv6TypeRouterAdvertisement, cast6.host).bytes(t)).
		drops(t, "posing as a router", HookPodEgress, ReasonInvalidSource)
	forwarded := neighbour(cast6.pod, cast6.friend, layers.ICMPv6TypeNeighborSolicitation, cast6.friend)
	forwarded.hopLimit = 64
	f.egress(forwarded.bytes(t)).passes(t, "forwarded: ordinary ICMPv6", HookPodEgress, ReasonForwarded)
}

// What looks like a listener's report or a solicitation and goes beyond the link is judged: an isolated pod must not talk
// to anybody that way.
func TestNeighbourPacketsBeyondTheLinkAreJudged(t *testing.T) {
	f, c := newFixture(t), cast6
	f.isolate(DirEgress, 0)
	f.isolate(DirIngress, 0)
	report := func(from, to netip.Addr) *packetSpec {
		p := base(from, to)
		p.proto, p.hopLimit, p.payload = layers.IPProtocolICMPv6, 1, make([]byte, 700)
		p.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2, 0)}
		return p
	}
	multicast := netip.MustParseAddr("ff02::16")
	ll := netip.MustParseAddr("fe80::10")
	f.egress(report(ll, multicast).bytes(t)).passes(t, "a report to the link", HookPodEgress, ReasonNeighbor)
	f.egress(report(netip.IPv6Unspecified(), multicast).bytes(t)).passes(t, "a report without an address yet", HookPodEgress, ReasonNeighbor)
	f.egress(report(c.pod, multicast).bytes(t)).drops(t, "a report from a routed address", HookPodEgress, ReasonDefaultDenied)
	far := report(ll, multicast)
	far.hopLimit = 64
	f.egress(far.bytes(t)).drops(t, "a report that could be forwarded", HookPodEgress, ReasonInvalidSource)
	f.egress(report(ll, c.friend).bytes(t)).drops(t, "a report to a pod", HookPodEgress, ReasonInvalidSource)
	query := report(ll, multicast)
	query.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeMLDv1MulticastListenerQueryMessage, 0)}
	f.egress(query.bytes(t)).drops(t, "a router's query", HookPodEgress, ReasonInvalidSource)
	f.ingress(query.bytes(t)).passes(t, "the router's query", HookPodIngress, ReasonNeighbor)
	f.ingress(report(ll, multicast).bytes(t)).drops(t, "another pod's report", HookPodIngress, ReasonDefaultDenied)
	f.egress(report(c.pod, c.world).bytes(t)).drops(t, "a report to the world", HookPodEgress, ReasonDefaultDenied)
	f.egress(report(c.pod, c.remote).bytes(t)).drops(t, "a report to another cluster", HookPodEgress, ReasonDefaultDenied)
	f.ingress(report(c.friend, c.pod).bytes(t)).drops(t, "a report from a pod", HookPodIngress, ReasonDefaultDenied)

	solicitation := func(to netip.Addr) *packetSpec {
		return neighbour(c.pod, to, layers.ICMPv6TypeNeighborSolicitation, to)
	}
	f.egress(solicitation(c.host).bytes(t)).passes(t, "is the node there", HookPodEgress, ReasonNeighbor)
	f.egress(solicitation(netip.MustParseAddr("fe80::1")).bytes(t)).passes(t, "is the router there", HookPodEgress, ReasonNeighbor)
	f.egress(solicitation(c.world).bytes(t)).drops(t, "is the world there", HookPodEgress, ReasonDefaultDenied)
	long := solicitation(c.friend)
	long.payload = append(long.payload, make([]byte, 900)...)
	f.egress(long.bytes(t)).drops(t, "a solicitation with data", HookPodEgress, ReasonMalformed)
	claim := neighbour(c.pod, c.host, layers.ICMPv6TypeNeighborAdvertisement, c.friend)
	claim.payload = append(claim.payload, make([]byte, 900)...)
	f.egress(claim.bytes(t)).drops(t, "an advertisement with data", HookPodEgress, ReasonMalformed)
	f.ingress(claim.bytes(t)).drops(t, "an advertisement with data", HookPodIngress, ReasonMalformed)
	router := neighbour(netip.MustParseAddr("fe80::1"), c.pod, layers.ICMPv6TypeRouterAdvertisement, c.host)
	router.payload = append(router.payload, make([]byte, 900)...)
	f.ingress(router.bytes(t)).passes(t, "a router with much to say", HookPodIngress, ReasonNeighbor)
	f.local(c.friend, Local{Ifindex: 99})
	f.egress(solicitation(c.friend).bytes(t)).passes(t, "is the other pod on the link there", HookPodEgress, ReasonNeighbor)
	f.egress(neighbour(c.pod, c.host, layers.ICMPv6TypeNeighborAdvertisement, netip.MustParseAddr("fe80::1")).bytes(t)).
		drops(t, "advertising the router's link-local address", HookPodEgress, ReasonInvalidSource)
}

func neighbour(from, to netip.Addr, typ uint8, target netip.Addr) *packetSpec {
	p := base(from, to)
	p.hopLimit = 255
	p.proto = layers.IPProtocolICMPv6
	p.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
	p.payload = append([]byte{0, 0, 0, 0}, target.AsSlice()...)
	return p
}

// arpFrom asks for the node's hardware address.
func arpFrom(t *testing.T, sender netip.Addr) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: podMAC[:], DstMAC: hostMAC[:], EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: podMAC[:], SourceProtAddress: sender.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: cast4.host.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestEgressARP(t *testing.T) {
	f := newFixture(t)
	arp := func(sender netip.Addr) []byte { return arpFrom(t, sender) }
	f.egress(arp(cast4.pod)).passes(t, "own name", HookPodEgress, ReasonNeighbor)
	f.egress(arp(netip.IPv4Unspecified())).passes(t, "probe", HookPodEgress, ReasonNeighbor)
	f.egress(arp(cast4.other)).drops(t, "somebody else's name", HookPodEgress, ReasonInvalidSource)
	f.ingress(arp(cast4.host)).passes(t, "to the pod", HookPodIngress, ReasonNeighbor)
	f.egress(append(arp(cast4.pod), make([]byte, 1200)...)).drops(t, "with data", HookPodEgress, ReasonMalformed)
	f.ingress(append(arp(cast4.host), make([]byte, 1200)...)).drops(t, "to the pod, with data", HookPodIngress, ReasonMalformed)
}

// iface changes the row of the pod's interface.
func (f *fixture) iface(change func(*Iface)) {
	f.t.Helper()
	var row Iface
	f.must(f.maps.Ifaces.Lookup(uint32(podIfindex), &row))
	change(&row)
	f.must(f.maps.Ifaces.Put(uint32(podIfindex), &row))
}

// A bridge sends frames where it last saw their hardware address. A pod may not use that of another pod, or of the gateway.
func TestEgressInAnothersHardwareAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		other, otherMAC := netip.MustParseAddr("fe80::ff:fe00:20"), [6]byte{2, 0, 0, 0, 0, 0x20}
		from := func(mac [6]byte, frame []byte) result {
			return f.egress(append(append(slices.Clone(frame[:6]), mac[:]...), frame[12:]...))
		}
		syn := tcp(c.pod, 4000, c.host, 80, "S").bytes(t)
		f.local(netip.MustParseAddr("fe80::ff:fe00:10"), Local{Ifindex: podIfindex})
		f.local(other, Local{Ifindex: podIfindex + 1})
		from(otherMAC, syn).passes(t, "no bridge", HookPodEgress, ReasonHost)
		f.iface(func(i *Iface) { i.Flags |= IfaceBridged })
		from(podMAC, syn).passes(t, "its own", HookPodEgress, ReasonHost)
		from([6]byte{2, 0, 0, 0, 0, 0x30}, syn).passes(t, "nobody's", HookPodEgress, ReasonHost)
		from(otherMAC, syn).drops(t, "another pod's", HookPodEgress, ReasonInvalidSource)
		from(hostMAC, syn).drops(t, "the gateway's", HookPodEgress, ReasonInvalidSource)
		from(otherMAC, arpFrom(t, cast4.pod)).drops(t, "another pod's, ARP", HookPodEgress, ReasonInvalidSource)
		claims := func(target netip.Addr) result {
			return f.egress(neighbour(target, cast6.host, layers.ICMPv6TypeNeighborAdvertisement, target).bytes(t))
		}
		claims(other).drops(t, "another pod's link-local address", HookPodEgress, ReasonInvalidSource)
		claims(netip.MustParseAddr("fe80::ff:fe00:10")).passes(t, "its own link-local address", HookPodEgress, ReasonNeighbor)
		if c.family != 2 {
			f.fromTunnel(tcp(c.remote, 4000, other, 80, "S").bytes(t)).drops(t, "to a link-local address", HookTunnelIngress, ReasonNotLocal)
		}
	})
}

func TestEgressFailsClosed(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 4000, c.remoteNobody, 80, "S").bytes(t)).
			drops(t, "other cluster, no such pod", HookPodEgress, ReasonUnknownDestination)

		foreign := tcp(c.pod, 4000, c.friend, 80, "S")
		foreign.etherType = layers.EthernetTypeMPLSUnicast
		f.egress(foreign.bytes(t)).drops(t, "neither IPv4 nor IPv6", HookPodEgress, ReasonUnsupportedProtocol)

		short := tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)
		f.egress(short[:len(short)-8]).drops(t, "cut TCP header", HookPodEgress, ReasonMalformed)

		f.must(f.maps.Ifaces.Delete(uint32(podIfindex)))
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).
			drops(t, "nobody registered", HookPodEgress, ReasonNoEndpoint)
	})
}

func TestEgressNeverBare(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		syn := tcp(c.pod, 4000, c.remote, 80, "S").bytes(t)
		notReady := func(what string) {
			t.Helper()
			f.egress(syn).drops(t, what, HookPodEgress, ReasonEncryptionNotReady)
		}
		f.must(f.maps.Peers.Put(uint32(remotePeer), &Peer{}))
		f.rule(DirEgress, line{peer: remoteIdentity, rule: 9})
		notReady("no keys yet")
		if e := f.events(); len(e) != 1 || e[0].RuleID != 0 || e[0].Verdict != VerdictDeny || f.ruleCount(9, DirEgress, VerdictDeny) != 0 {
			t.Errorf("events = %+v: the rule that allows is not to blame", e)
		}
		f.must(f.maps.Peers.Put(uint32(remotePeer), &Peer{Flags: PeerReady}))
		f.egress(syn).tunnels(t, "keys exchanged: the flow goes on")

		f.must(f.maps.Peers.Put(uint32(remotePeer), &Peer{}))
		notReady("keys lost under a running flow")
		f.must(f.maps.Peers.Put(uint32(remotePeer), &Peer{Flags: PeerReady}))

		cfg := f.cfg
		cfg.TunnelIfindex = 0
		f.configure(cfg)
		notReady("no tunnel device")
		cfg.TunnelIfindex = tunnelIfindex
		f.configure(cfg)

		f.address(c.remote, Remote{Identity: remoteIdentity, Flags: RemoteTunnel | RemoteRequireTunnel})
		f.bumpEpoch()
		notReady("no peer known for the address")

		// Peer 0 means none, whatever stands in its row.
		f.must(f.maps.Peers.Put(uint32(0), &Peer{Flags: PeerReady}))
		notReady("peer 0 is nobody")
	})
}

func TestEgressIdentityByRange(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: blockIdentity, proto: 6, rule: 1})
		f.egress(tcp(c.pod, 4000, c.block, 80, "S").bytes(t)).passes(t, "in the ipBlock", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4000, c.world, 80, "S").bytes(t)).drops(t, "outside", HookPodEgress, ReasonDefaultDenied)
		// Whoever has the address.
		f.address(c.block, Remote{Identity: friendIdentity})
		f.raiseAddress(c.block)
		f.egress(tcp(c.pod, 4001, c.block, 80, "S").bytes(t)).passes(t, "a pod in the ipBlock", HookPodEgress, ReasonForwarded)
		f.address(c.block, Remote{Identity: IdentityWorld, Flags: RemoteNode})
		f.raiseAddress(c.block)
		f.egress(tcp(c.pod, 4002, c.block, 80, "S").bytes(t)).passes(t, "a node in the ipBlock", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4000, c.host, 80, "S").bytes(t)).passes(t, "own node, isolated or not", HookPodEgress, ReasonHost)
		f.rule(DirEgress, line{peer: IdentityWorld, rule: 2})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.world, 80, "S").bytes(t)).passes(t, "world allowed", HookPodEgress, ReasonForwarded)
	})
}

// A node always reaches its pods. They reach it unless a line names it, or nobody knows what their policies say.
func TestOwnNodeIsDeniedByName(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		kubelet := func() result { return f.egress(tcp(c.pod, 4000, c.host, 10250, "S").bytes(t)) }
		f.rule(DirEgress, line{verdict: VerdictDeny, rule: 1})
		kubelet().passes(t, "everybody is denied", HookPodEgress, ReasonHost)
		f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10250, verdict: VerdictDeny, rule: 2})
		f.bumpEpoch()
		kubelet().drops(t, "the node is denied", HookPodEgress, ReasonPolicyDenied)
		f.egress(tcp(c.pod, 4000, c.host, 10250, "A").bytes(t)).drops(t, "the flow that ran", HookPodEgress, ReasonPolicyDenied)
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).passes(t, "another port", HookPodEgress, ReasonHost)
		probe := func(port uint16) result { return f.ingress(tcp(c.host, port, c.pod, 8080, "S").bytes(t)) }
		f.rule(DirIngress, line{peer: IdentityHost, verdict: VerdictDeny, rule: 3})
		f.bumpEpoch()
		probe(4001).passes(t, "the kubelet's probe", HookPodIngress, ReasonHost)
		f.egress(tcp(c.pod, 8080, c.host, 4001, "SA").bytes(t)).passes(t, "and its answer", HookPodEgress, ReasonHost)
		f.removeRules(DirEgress)
		f.isolate(DirEgress, SubjectClosed)
		f.bumpEpoch()
		f.egress(udp(c.pod, 4001, c.host, 53).bytes(t)).drops(t, "closed", HookPodEgress, ReasonDefaultDenied)
		probe(4002).passes(t, "the kubelet's probe", HookPodIngress, ReasonHost)
	})
}
