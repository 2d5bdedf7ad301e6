// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestSolicitationsClaimNobodyElsesLinkLocal(t *testing.T) {
	f := newFixture(t)
	f.must(f.maps.Ifaces.Put(uint32(podIfindex), &Iface{Identity: podIdentity, Flags: IfaceIP4 | IfaceIP6 | IfaceBridged,
		IP4: cast4.pod.As4(), IP6: cast6.pod.As16(), PodMAC: podMAC, HostMAC: hostMAC}))
	theirs := netip.MustParseAddr("fe80::ff:fe00:11") // made of 02:00:00:00:00:11
	f.local(theirs, Local{Ifindex: 99})
	f.local(cast6.other, Local{Ifindex: 99})
	group := netip.MustParseAddr("ff02::1:ff00:1")
	gateway := netip.MustParseAddr("fe80::ff:fe00:1") // made of the host's
	with := func(from netip.Addr, typ uint8, target netip.Addr) []byte {
		p := neighbour(from, group, typ, target)
		p.payload = append(p.payload, 1, 1, 2, 0, 0, 0, 0, 0x10) // source link-layer address: ours
		return p.bytes(t)
	}
	f.egress(with(theirs, layers.ICMPv6TypeNeighborSolicitation, cast6.host)).
		drops(t, "asks as another pod", HookPodEgress, ReasonInvalidSource)
	f.egress(with(theirs, layers.ICMPv6TypeRouterSolicitation, cast6.host)).
		drops(t, "asks for routers as another pod", HookPodEgress, ReasonInvalidSource)
	f.egress(with(gateway, layers.ICMPv6TypeNeighborSolicitation, cast6.host)).
		drops(t, "asks as the gateway", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(gateway, group, layers.ICMPv6TypeNeighborAdvertisement, gateway).bytes(t)).
		drops(t, "advertises the gateway's address", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(netip.IPv6Unspecified(), group, layers.ICMPv6TypeNeighborSolicitation, cast6.other).bytes(t)).
		drops(t, "claims another pod's address while that one asks whether it is free", HookPodEgress, ReasonInvalidSource)
	f.egress(neighbour(netip.IPv6Unspecified(), group, layers.ICMPv6TypeNeighborSolicitation, cast6.pod).bytes(t)).
		passes(t, "asks whether its own address is free", HookPodEgress, ReasonNeighbor)
	f.egress(with(netip.MustParseAddr("fe80::1234"), layers.ICMPv6TypeNeighborSolicitation, cast6.host)).
		passes(t, "asks from a link-local address that is nobody's", HookPodEgress, ReasonNeighbor)
}
