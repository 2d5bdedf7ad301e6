// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
	"time"
)

func TestAnswersNeedNoRule(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		answer := tcp(c.friend, 80, c.pod, 4000, "SA").bytes(t)
		f.ingress(answer).drops(t, "answer to nothing", HookPodIngress, ReasonDefaultDenied)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "pod opens", HookPodEgress, ReasonForwarded)
		f.ingress(answer).passes(t, "the answer", HookPodIngress, ReasonForwarded)

		e, ok := f.flow(ctKey{c, c.friend, 4000, 80, 6})
		if !ok || e.Flags != CTByPod|CTReplied|CTByPolicy || e.Identity != friendIdentity || e.Subject != podIdentity {
			t.Errorf("flow = %+v, %v", e, ok)
		}
	})
}

// A flow lives as long as its state says, no longer.
func TestFlowLifetimes(t *testing.T) {
	type step struct {
		toPod bool
		flags string // TCP; else UDP
	}
	for _, tc := range []struct {
		name  string
		steps []step
		lives time.Duration
	}{
		{"SYN only", []step{{false, "S"}}, 60 * time.Second},
		{"established", []step{{false, "S"}, {true, "SA"}}, 6 * time.Hour},
		{"half closed", []step{{false, "S"}, {true, "SA"}, {false, "FA"}}, 6 * time.Hour},
		{"closed", []step{{false, "S"}, {true, "SA"}, {false, "FA"}, {true, "FA"}}, 10 * time.Second},
		{"reset", []step{{false, "S"}, {true, "R"}}, 10 * time.Second},
		{"UDP", []step{{false, ""}, {true, ""}}, 90 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cast4
			packet := func(s step) []byte {
				from, to, sport, dport := c.pod, c.friend, uint16(4000), uint16(80)
				if s.toPod {
					from, to, sport, dport = to, from, dport, sport
				}
				if s.flags == "" {
					return udp(from, sport, to, dport).bytes(t)
				}
				return tcp(from, sport, to, dport, s.flags).bytes(t)
			}
			last, key := step{true, "A"}, ctKey{c, c.friend, 4000, 80, 6}
			if tc.steps[0].flags == "" {
				last.flags, key.proto = "", 17
			}
			// later brings the flow into its state and answers so much later.
			later := func(d time.Duration) result {
				f := newFixture(t)
				f.isolate(DirIngress, 0) // only answers get in
				for _, s := range tc.steps {
					hook, run := HookPodEgress, f.egress
					if s.toPod {
						hook, run = HookPodIngress, f.ingress
					}
					run(packet(s)).passes(t, "opening", hook, ReasonForwarded)
				}
				f.age(key, d)
				return f.ingress(packet(last))
			}
			// The clock may tick meanwhile: stay away from the edge.
			later(tc.lives-3*time.Second).passes(t, "before the end", HookPodIngress, ReasonForwarded)
			later(tc.lives+3*time.Second).drops(t, "after the end", HookPodIngress, ReasonDefaultDenied)
		})
	}
}

func TestRevokedPolicyCutsRunningFlows(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, proto: 6, from: 80, rule: 7})
		open := tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)
		data := tcp(c.friend, 4000, c.pod, 80, "A").bytes(t)
		answer := tcp(c.pod, 80, c.friend, 4000, "SA").bytes(t)
		f.ingress(open).passes(t, "open", HookPodIngress, ReasonForwarded)
		f.egress(answer).passes(t, "answer", HookPodEgress, ReasonForwarded)

		f.removeRules(DirIngress)
		f.ingress(data).passes(t, "before the epoch moves", HookPodIngress, ReasonForwarded)
		f.bumpEpoch()
		f.egress(answer).drops(t, "answer first: judged as the flow was opened", HookPodEgress, ReasonDefaultDenied)
		f.ingress(data).drops(t, "then data", HookPodIngress, ReasonDefaultDenied)
		f.ingress(open).drops(t, "and a retry", HookPodIngress, ReasonDefaultDenied)
		key := ctKey{c, c.friend, 80, 4000, 6}
		f.age(key, 2*time.Minute)
		f.egress(answer).drops(t, "a late answer opens nothing", HookPodEgress, ReasonDefaultDenied)

		f.rule(DirIngress, line{peer: friendIdentity, proto: 6, from: 80, rule: 8})
		f.bumpEpoch()
		f.ingress(data).passes(t, "allowed again", HookPodIngress, ReasonForwarded)
		if e, _ := f.flow(key); e.RuleID != 8 || e.Epoch != f.cfg.PolicyEpoch || e.Flags&CTDenied != 0 {
			t.Errorf("flow = %+v, want rule 8 and this epoch", e)
		}
	})
}

// A denied flow is remembered for longer than it would have lived: its answer
// must not look like a new flow of the pod's.
func TestCutFlowOutlivesItsOwnLifetime(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 7})
		f.ingress(udp(c.friend, 4000, c.pod, 53).bytes(t)).passes(t, "question", HookPodIngress, ReasonForwarded)
		f.removeRules(DirIngress)
		f.bumpEpoch()
		answer := udp(c.pod, 53, c.friend, 4000).bytes(t)
		f.egress(answer).drops(t, "answer after the change", HookPodEgress, ReasonDefaultDenied)
		f.age(ctKey{c, c.friend, 53, 4000, 17}, 2*time.Minute)
		f.egress(answer).drops(t, "a late one", HookPodEgress, ReasonDefaultDenied)
	})
}

func TestChangedIdentityIsJudgedAnew(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 7})
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "S").bytes(t)).passes(t, "open", HookPodIngress, ReasonForwarded)
		f.class(3333, 100)
		f.address(c.friend, Remote{Identity: 3333})
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "A").bytes(t)).
			drops(t, "somebody else has the address now", HookPodIngress, ReasonDefaultDenied)

		// The pod's own identity needs no epoch: the entry says whose policy it was.
		f.ingress(tcp(c.world, 4000, c.pod, 80, "S").bytes(t)).drops(t, "world", HookPodIngress, ReasonDefaultDenied)
		var i Iface
		f.must(f.maps.Ifaces.Lookup(uint32(podIfindex), &i))
		i.Identity = 1001
		f.policies[DirIngress] = &testPolicy{}
		f.publish(1001, DirIngress)
		f.must(f.maps.Ifaces.Put(uint32(podIfindex), &i))
		f.ingress(tcp(c.friend, 4000, c.pod, 80, "A").bytes(t)).
			passes(t, "the new identity is not isolated", HookPodIngress, ReasonForwarded)
	})
}

func TestSYNAgainstARunningFlowFacesPolicy(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "pod opens", HookPodEgress, ReasonForwarded)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "SA").bytes(t)).passes(t, "answer", HookPodIngress, ReasonForwarded)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "S").bytes(t)).
			drops(t, "the peer opens over the same ports", HookPodIngress, ReasonDefaultDenied)
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "A").bytes(t)).
			passes(t, "the running flow is not hurt", HookPodIngress, ReasonForwarded)
	})
}

func TestClosedConnectionOpensAnew(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t))
		f.ingress(tcp(c.friend, 80, c.pod, 4000, "R").bytes(t))
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "again", HookPodEgress, ReasonForwarded)
		if e, _ := f.flow(ctKey{c, c.friend, 4000, 80, 6}); e.Flags != CTByPod|CTByPolicy {
			t.Errorf("flags = %#x, want a fresh flow", e.Flags)
		}
	})
}

func TestDeniedFlowsLeaveNoEntry(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).drops(t, "denied", HookPodEgress, ReasonDefaultDenied)
		if e, ok := f.flow(ctKey{c, c.friend, 4000, 80, 6}); ok {
			t.Errorf("a denied flow is remembered: %+v", e)
		}
	})
}
