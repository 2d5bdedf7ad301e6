// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func (f *fixture) fromTunnel(data []byte) result { return f.run(f.tunnel, data, skb{}) }

func TestTunnelDelivers(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		sent := tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)
		r := f.fromTunnel(sent)
		r.expect(t, "to a local pod", tcActRedirect, HookTunnelIngress, ReasonDelivered)
		if r.mark != MarkTunnel {
			t.Errorf("mark %#x, want the tunnel's", r.mark)
		}
		// PROG_TEST_RUN shows room for a link header in front of what the
		// program made of the packet.
		frame := r.data[ethHeaderLength:]
		want := append(append(append([]byte{}, podMAC[:]...), hostMAC[:]...), sent[12:]...)
		if !bytes.Equal(frame, want) {
			t.Errorf("frame\n got %x\nwant %x", frame, want)
		}
	})
}

func TestTunnelRefuses(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		refused := func(what string, from, to netip.Addr, reason Reason) {
			t.Helper()
			f.fromTunnel(tcp(from, 4000, to, 80, "S").bytes(t)).drops(t, what, HookTunnelIngress, reason)
		}
		refused("source in a range, but no pod", c.remoteNobody, c.pod, ReasonUnknownSource)
		refused("source of the world", c.world, c.pod, ReasonUnknownSource)
		refused("posing as this node", c.host, c.pod, ReasonUnknownSource)
		refused("to another node's pod", c.remote, c.friend, ReasonNotLocal)
		refused("to the world", c.remote, c.world, ReasonNotLocal)
		if e := f.events(); len(e) == 0 || e[0].Hook != HookTunnelIngress || e[0].Saddr != wide(c.remoteNobody) {
			t.Errorf("events = %+v, want the first refusal told", e)
		}
		refused("to a port of this node itself", c.remote, c.host, ReasonHostClosed)
		ping := func(reply bool) result { return f.fromTunnel(echo(c.remote, c.host, 7, reply).bytes(t)) }
		ping(false).drops(t, "a ping to this node", HookTunnelIngress, ReasonHostClosed)
		ping(true).passes(t, "the answer to one of its own", HookTunnelIngress, ReasonHost)
		zero := netip.IPv4Unspecified()
		if c.family != 2 {
			zero = netip.IPv6Unspecified()
		}
		f.leadsTo(netip.AddrPortFrom(zero, 80), 3, ServicePolicyOnly, netip.AddrPortFrom(c.pod, 80))
		f.fromTunnel(tcp(c.remote, 4000, c.host, 80, "S").bytes(t)).passes(t, "to a node port", HookTunnelIngress, ReasonHost)

		odd := tcp(c.remote, 4000, c.pod, 80, "S")
		odd.etherType = layers.EthernetTypeMPLSUnicast
		f.fromTunnel(odd.bytes(t)).drops(t, "neither IPv4 nor IPv6", HookTunnelIngress, ReasonUnsupportedProtocol)
	})
}

func TestUplinkIsTheLastGate(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		uplink := func(from, to netip.Addr) result {
			return f.run(f.progs.UplinkEgress, udp(from, 4000, to, 51820).bytes(t), skb{})
		}
		uplink(c.pod, c.remote).drops(t, "to another cluster's pod", HookUplinkEgress, ReasonPlaintextLeak)
		uplink(c.host, c.remoteNobody).drops(t, "to its range, masqueraded", HookUplinkEgress, ReasonPlaintextLeak)
		uplink(c.remote, c.world).drops(t, "from another cluster's pod", HookUplinkEgress, ReasonPlaintextLeak)
		if e := f.events(); len(e) == 0 || e[0].Reason != ReasonPlaintextLeak {
			t.Errorf("events = %+v, want the leak told", e)
		}
		for _, to := range []netip.Addr{c.world, c.friend, c.block, c.service} {
			if r := uplink(c.host, to); r.action != tcActPass || len(r.delta) != 0 {
				t.Errorf("node's own traffic to %s: action %d, counted %v", to, r.action, r.delta)
			}
		}
	})
}

// That an address is known, or in a range that a policy names, takes nothing from the cluster's range around it. An
// exemption does.
func TestUplinkGuardsRangesOfClusters(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		passes := func(from, to netip.Addr) bool {
			return f.run(f.progs.UplinkEgress, udp(from, 4000, to, 51820).bytes(t), skb{}).action == tcActPass
		}
		alone := netip.PrefixFrom(c.remoteNobody, c.remoteNobody.BitLen()).String()
		f.cidr(alone, Remote{Identity: blockIdentity})
		f.address(c.remoteNobody, Remote{Identity: friendIdentity})
		if passes(c.host, c.remoteNobody) || passes(c.remoteNobody, c.world) {
			t.Error("a policy's range, or a pod, opened a hole in a cluster's range")
		}
		f.guard(alone, 0)
		if !passes(c.host, c.remoteNobody) || !passes(c.remoteNobody, c.world) {
			t.Error("an exempt address was stopped")
		}
		if passes(c.host, c.remote) || passes(c.remoteNobody, c.remote) {
			t.Error("the exemption is for others too")
		}
	})
}
