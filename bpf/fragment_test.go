// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"
)

func TestDeniedFragmentsPushOutNobody(t *testing.T) {
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

func TestChecksumsInFragmentHeaders(t *testing.T) {
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
	inNS(t, n.podNS, func() error { return sendFrame("eth0", first) })
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

// A later TCP fragment that begins within the header would rewrite flags that were judged.
func TestLaterFragmentsDontReachIntoTheHeader(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 4000, c.friend, 443, "S").data(make([]byte, 64)).fragment(7, 0, true).bytes(t)).
			passes(t, "first fragment", HookPodEgress, ReasonForwarded)
		for _, offset := range []uint16{8, 16} {
			f.egress(tcp(c.pod, 4000, c.friend, 443, "S").data(make([]byte, 64)).fragment(7, offset, false).bytes(t)).
				drops(t, "reaches into the header", HookPodEgress, ReasonMalformed)
		}
		f.egress(tcp(c.pod, 4000, c.friend, 443, "S").data(make([]byte, 64)).fragment(7, 24, false).bytes(t)).
			passes(t, "begins behind it", HookPodEgress, ReasonForwarded)
	})
}
