// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

func TestIngressWhoMayKnock(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).passes(t, "same cluster", HookPodIngress, ReasonForwarded)
		f.ingress(tcp(c.world, 4000, c.pod, 80, "S").bytes(t)).passes(t, "world", HookPodIngress, ReasonForwarded)
		f.ingress(tcp(c.host, 4000, c.pod, 80, "S").bytes(t)).passes(t, "own node", HookPodIngress, ReasonHost)
		f.ingressFromTunnel(tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)).
			passes(t, "other cluster by the tunnel", HookPodIngress, ReasonForwarded)
		f.ingressFromTunnel(tcp(c.remoteNobody, 4000, c.pod, 80, "S").bytes(t)).
			drops(t, "other cluster, no such pod", HookPodIngress, ReasonUnknownSource)
		f.ingress(tcp(c.service, 4000, c.pod, 80, "S").bytes(t)).
			drops(t, "a service address opens nothing", HookPodIngress, ReasonUnknownSource)
	})
}

func TestIngressPlaintextOfAnotherCluster(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		syn := tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)
		f.ingress(syn).drops(t, "in the clear", HookPodIngress, ReasonPlaintext)
		f.ingressFromTunnel(syn).passes(t, "by the tunnel", HookPodIngress, ReasonForwarded)
		f.ingress(tcp(c.remote, 4000, c.pod, 80, "A").bytes(t)).
			drops(t, "in the clear into a running flow", HookPodIngress, ReasonPlaintext)

		// The pod's own flow: its answers must be encrypted too.
		f.egress(tcp(c.pod, 5000, c.remote, 80, "S").bytes(t)).tunnels(t, "pod opens")
		answer := tcp(c.remote, 80, c.pod, 5000, "SA").bytes(t)
		f.ingress(answer).drops(t, "answer in the clear", HookPodIngress, ReasonPlaintext)
		f.ingressFromTunnel(answer).passes(t, "answer by the tunnel", HookPodIngress, ReasonForwarded)
	})
}

func TestIngressMarkIsCleared(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		syn := tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)
		if r := f.ingressFromTunnel(syn); r.mark != 0 {
			t.Errorf("mark %#x left on the packet", r.mark)
		}
		r := f.run(f.progs.PodIngress, tcp(c.friend, 1, c.pod, 80, "S").bytes(t), skb{Mark: 0x4000})
		if r.mark != 0x4000 {
			t.Errorf("somebody else's mark became %#x", r.mark)
		}
	})
}

func TestAnswersGoBackTheWayTheyCame(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		// A node of the same cluster that may use either way.
		f.address(c.friend, Remote{Identity: friendIdentity, Peer: remotePeer})

		f.ingressFromTunnel(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).
			passes(t, "came by the tunnel", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.friend, 4000, "SA").bytes(t)).tunnels(t, "so does the answer")

		f.ingress(tcp(c.friend, 4001, c.pod, 80, "S").bytes(t)).
			passes(t, "came by the CNI's network", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.friend, 4001, "SA").bytes(t)).
			passes(t, "so does the answer", HookPodEgress, ReasonForwarded)

		f.ingressFromTunnel(tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)).
			passes(t, "other cluster", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.remote, 4000, "SA").bytes(t)).tunnels(t, "always by the tunnel")
	})
}

// A peer that gets a key is answered through the tunnel: flows that it opened before, and flows that its node still opens
// in the clear because it doesn't know this node's key yet.
func TestAnswersAreEncryptedOnceThePeerIs(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).passes(t, "before there are keys", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.friend, 4000, "SA").bytes(t)).passes(t, "before there are keys", HookPodEgress, ReasonForwarded)

		f.address(c.friend, Remote{Identity: friendIdentity, Peer: remotePeer, Flags: RemoteTunnel})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 80, c.friend, 4000, "A").bytes(t)).tunnels(t, "the answer of the running flow")
		f.ingress(tcp(c.friend, 4001, c.pod, 80, "S").bytes(t)).passes(t, "a new flow in the clear", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.friend, 4001, "SA").bytes(t)).tunnels(t, "its answer")
	})
}

// An error is as good as the flow that it quotes: one that policy no longer allows carries none, either way.
func TestICMPErrorsEndWithTheirFlow(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		syn := udp(c.pod, 4000, c.friend, 80)
		f.egress(syn.bytes(t)).passes(t, "allowed", HookPodEgress, ReasonForwarded)
		f.isolate(DirEgress, 0)
		f.isolate(DirIngress, 0)
		f.bumpEpoch()
		f.ingress(unreachable(t, c.friend, c.pod, syn).bytes(t)).drops(t, "from the peer", HookPodIngress, ReasonUnrelated)
		quoted := udp(c.friend, 80, c.pod, 4000).data(make([]byte, 900))
		f.egress(unreachable(t, c.pod, c.friend, quoted).bytes(t)).drops(t, "to the peer", HookPodEgress, ReasonUnrelated)
	})
}

func TestICMPErrorsBelongToAFlow(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		out := udp(c.pod, 5000, c.friend, 53)
		back := unreachable(t, c.friend, c.pod, out)
		f.ingress(back.bytes(t)).drops(t, "about nothing", HookPodIngress, ReasonUnrelated)
		f.egress(out.bytes(t)).passes(t, "pod sends", HookPodEgress, ReasonForwarded)
		f.isolate(DirIngress, 0)
		f.ingress(back.bytes(t)).passes(t, "about the pod's flow", HookPodIngress, ReasonRelated)
		f.ingress(unreachable(t, c.world, c.pod, out).bytes(t)).
			passes(t, "from a router on the way", HookPodIngress, ReasonRelated)
		f.ingress(unreachable(t, c.friend, c.pod, udp(c.other, 5000, c.friend, 53)).bytes(t)).
			drops(t, "quotes somebody else", HookPodIngress, ReasonUnrelated)

		in := udp(c.remote, 6000, c.pod, 99)
		f.rule(DirIngress, line{rule: 1})
		f.ingressFromTunnel(in.bytes(t)).passes(t, "remote asks", HookPodIngress, ReasonForwarded)
		f.egress(unreachable(t, c.pod, c.remote, in).bytes(t)).tunnels(t, "pod's refusal goes by the tunnel")
		f.egress(unreachable(t, c.pod, c.friend, in).bytes(t)).
			drops(t, "refusal to a bystander", HookPodEgress, ReasonUnrelated)

		f.egress(udp(c.pod, 7000, c.remote, 53).bytes(t)).tunnels(t, "pod asks remote")
		f.ingress(unreachable(t, c.remote, c.pod, udp(c.pod, 7000, c.remote, 53)).bytes(t)).
			drops(t, "error about an encrypted flow, in the clear", HookPodIngress, ReasonPlaintext)
	})
}

// A pod may not speak about another pod's flow, nor anybody about a cut one.
func TestICMPErrorsAboutOthersAndCutFlows(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		in := udp(c.friend, 6000, c.pod, 99)
		f.ingress(in.bytes(t)).passes(t, "friend asks", HookPodIngress, ReasonForwarded)
		e, _ := f.flow(ctKey{c, c.friend, 99, 6000, 17})
		others := c
		others.pod = c.other
		m, key := f.ctMap(ctKey{others, c.friend, 99, 6000, 17})
		f.must(m.Put(key, &e))
		f.egress(unreachable(t, c.pod, c.friend, udp(c.friend, 6000, c.other, 99)).bytes(t)).
			drops(t, "about another pod's flow", HookPodEgress, ReasonUnrelated)

		f.isolate(DirIngress, 0)
		f.bumpEpoch()
		f.ingress(in.bytes(t)).drops(t, "cut", HookPodIngress, ReasonDefaultDenied)
		f.egress(unreachable(t, c.pod, c.friend, in).bytes(t)).
			drops(t, "about a cut flow", HookPodEgress, ReasonUnrelated)
	})
}

func TestPingsTheTwoWaysAreTwoFlows(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.egress(echo(c.pod, c.friend, 7, false).bytes(t)).passes(t, "pod pings", HookPodEgress, ReasonForwarded)
		f.ingress(echo(c.friend, c.pod, 7, true).bytes(t)).passes(t, "the answer", HookPodIngress, ReasonForwarded)
		f.ingress(echo(c.friend, c.pod, 7, false).bytes(t)).
			drops(t, "a ping with the same id is no answer", HookPodIngress, ReasonDefaultDenied)
	})
}

func TestFragmentsFollowTheFirst(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{proto: 17, from: 53, rule: 1})
		later := func(id uint32) []byte {
			return udp(c.friend, 4000, c.pod, 53).data(make([]byte, 64)).fragment(id, 1024, false).bytes(t)
		}
		first := func(id uint32, dport uint16) []byte {
			return udp(c.friend, 4000, c.pod, dport).data(make([]byte, 64)).fragment(id, 0, true).bytes(t)
		}
		f.ingress(later(1)).drops(t, "first not seen", HookPodIngress, ReasonFragment)
		f.ingress(first(1, 53)).passes(t, "first", HookPodIngress, ReasonForwarded)
		f.ingress(later(1)).passes(t, "its follower", HookPodIngress, ReasonForwarded)
		f.ingress(first(2, 54)).drops(t, "first of a denied one", HookPodIngress, ReasonDefaultDenied)
		f.ingress(later(2)).drops(t, "its follower", HookPodIngress, ReasonFragment)
	})
}

func TestNeighboursDontComeThroughTheTunnel(t *testing.T) {
	f, c := newFixture(t), cast6
	ll := netip.MustParseAddr("fe80::1")
	for _, typ := range []uint8{layers.ICMPv6TypeRouterAdvertisement, layers.ICMPv6TypeNeighborAdvertisement} {
		p := neighbour(ll, c.pod, typ, c.host).bytes(t)
		f.ingress(p).passes(t, "of the link", HookPodIngress, ReasonNeighbor)
		f.ingressFromTunnel(p).drops(t, "of another cluster", HookPodIngress, ReasonInvalidSource)
	}
}

// A quoted packet may have extension headers before its ports.
func TestICMPErrorsQuoteExtensionHeaders(t *testing.T) {
	f, c := newFixture(t), cast6
	f.isolate(DirIngress, 0)
	out := udp(c.pod, 5000, c.friend, 53)
	f.egress(out.bytes(t)).passes(t, "pod sends", HookPodEgress, ReasonForwarded)
	quote := func(frame []byte) []byte {
		p := unreachable(t, c.friend, c.pod, out)
		p.payload = append([]byte{0, 0, 0, 0}, frame[ethHeaderLength:]...)
		return p.bytes(t)
	}
	f.ingress(quote(extend(out.bytes(t), 0, 1))).passes(t, "about the pod's flow", HookPodIngress, ReasonRelated)
	f.ingress(quote(extend(udp(c.pod, 5001, c.friend, 53).bytes(t), 0, 1))).drops(t, "about none", HookPodIngress, ReasonUnrelated)
	f.ingress(quote(extend(out.bytes(t), 0, 0, 0, 0, 0, 0, 0))).drops(t, "an absurd chain", HookPodIngress, ReasonMalformed)
}
