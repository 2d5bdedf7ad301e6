// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestForgedNodesAreNotTheNode(t *testing.T) {
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

func TestLinkLocalSendersAreNotTheWorld(t *testing.T) {
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

func TestNobodyReachesTheNodesLoopback(t *testing.T) {
	f, c := newFixture(t), cast4
	f.isolate(DirEgress, 0)
	f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10248, verdict: VerdictDeny, rule: 1})
	f.rule(DirEgress, line{peer: IdentityWorld, rule: 2})
	f.bumpEpoch()
	f.egress(tcp(c.pod, 4000, c.loopback(), 10248, "S").bytes(t)).drops(t, "the node's loopback", HookPodEgress, ReasonUnknownDestination)
}
