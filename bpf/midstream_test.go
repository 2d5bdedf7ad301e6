// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"
)

// drop removes a flow from the table, as a flood of others does.
func (f *fixture) drop(k ctKey) {
	f.t.Helper()
	m, key := f.ctMap(k)
	f.must(m.Delete(key))
}

// A connection that policy cut stays cut when the table has lost it, from whichever side a packet comes then.
func TestACutFlowThatIsForgottenStaysCut(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		key := ctKey{c, c.friend, 80, 4000, 6}
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 7})
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).passes(t, "opened", HookPodIngress, ReasonForwarded)
		f.removeRules(DirIngress)
		f.bumpEpoch()
		f.egress(tcp(c.pod, 80, c.friend, 4000, "A").bytes(t)).drops(t, "cut", HookPodEgress, ReasonDefaultDenied)
		f.drop(key)
		f.events()
		f.egress(tcp(c.pod, 80, c.friend, 4000, "A").bytes(t)).drops(t, "forgotten", HookPodEgress, ReasonNotOpened)
		if e := f.events(); len(e) != 1 || e[0].Dir != DirIngress || e[0].RuleID != defaultRule {
			t.Errorf("events %+v, want the rule that denies the other way", e)
		}
		if _, there := f.flow(key); there {
			t.Error("it has an entry")
		}
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "A").bytes(t)).drops(t, "from the peer", HookPodIngress, ReasonDefaultDenied)
	})
}

// One that may be opened either way goes on: it ran before the agent came.
func TestAFlowOfBeforeGoesOnWhereBothSidesMayOpenIt(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 80, c.friend, 4000, "A").bytes(t)).passes(t, "no policy", HookPodEgress, ReasonForwarded)
		f.ingress(tcp(c.world, 4000, c.pod, 80, "A").bytes(t)).passes(t, "no policy, from the peer", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 5000, c.service, 443, "A").bytes(t)).passes(t, "to a service", HookPodEgress, ReasonService)
		f.egress(tcp(c.pod, 5000, c.host, 443, "A").bytes(t)).passes(t, "to the node", HookPodEgress, ReasonHost)

		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, proto: 6, from: 80, rule: 7})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 80, c.friend, 4001, "A").bytes(t)).passes(t, "an answer that is allowed", HookPodEgress, ReasonForwarded)
		f.ingress(tcp(c.friend, 4002, c.pod, 80, "PA").bytes(t)).passes(t, "a request that is allowed", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 81, c.friend, 4001, "A").bytes(t)).drops(t, "an answer from another port", HookPodEgress, ReasonNotOpened)
		f.isolate(DirEgress, 0)
		f.bumpEpoch()
		f.ingress(tcp(c.friend, 4003, c.pod, 80, "A").bytes(t)).drops(t, "the pod may open nothing", HookPodIngress, ReasonNotOpened)
		f.ingress(tcp(c.friend, 4003, c.pod, 80, "S").bytes(t)).passes(t, "it begins", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 80, c.friend, 4003, "SA").bytes(t)).passes(t, "and is answered", HookPodEgress, ReasonForwarded)
	})
}

// A reset that its sender takes back, by going on, doesn't make the flow forgotten.
func TestAForgedResetIsForgiven(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		key := ctKey{c, c.friend, 4000, 80, 6}
		f.isolate(DirIngress, 0)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "opened", HookPodEgress, ReasonForwarded)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "SA").bytes(t)).passes(t, "answered", HookPodIngress, ReasonForwarded)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "R").bytes(t)).passes(t, "reset", HookPodIngress, ReasonForwarded)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)).passes(t, "the pod goes on", HookPodEgress, ReasonForwarded)
		if e, _ := f.flow(key); e.Flags&CTRstPeer == 0 {
			t.Error("the pod took back its peer's reset")
		}
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "A").bytes(t)).passes(t, "the peer goes on", HookPodIngress, ReasonForwarded)
		f.age(key, 10*time.Minute)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "A").bytes(t)).passes(t, "much later", HookPodIngress, ReasonForwarded)
	})
}

// A frame that a bridge floods to every pod touches no flow but that of its own pod.
func TestFramesForOtherPods(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.ingress(tcp(c.friend, 4000, c.other, 80, "S").bytes(t)).drops(t, "another pod's", HookPodIngress, ReasonNotAddressed)
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).passes(t, "its own", HookPodIngress, ReasonForwarded)
		f.isolate(DirIngress, 0)
		f.bumpEpoch()
		multicast := netip.MustParseAddr("224.0.0.251")
		if c.family != 2 {
			multicast = netip.MustParseAddr("ff02::fb")
		}
		f.ingress(udp(c.friend, 5353, multicast, 5353).bytes(t)).drops(t, "multicast is judged", HookPodIngress, ReasonDefaultDenied)
		f.events()
		f.ingress(udp(c.friend, 4000, c.other, 80).bytes(t)).drops(t, "another pod's", HookPodIngress, ReasonNotAddressed)
		if e := f.events(); len(e) != 0 {
			t.Errorf("events %+v for a flooded frame", e)
		}
	})
}
