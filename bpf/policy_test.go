// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import "testing"

func TestUnknownVerdictDenies(t *testing.T) {
	f, c := newFixture(t), cast4
	f.rule(DirEgress, line{peer: friendIdentity, verdict: 99, rule: 5})
	f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).
		drops(t, "a verdict from the future", HookPodEgress, ReasonPolicyDenied)
}

func TestAuditLetsThroughAndTells(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, SubjectAudit)
		f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "audited", HookPodEgress, ReasonAudited)
		e := f.events()
		if len(e) != 1 || e[0].Verdict != VerdictAuditDeny || e[0].RuleID != defaultRule || e[0].Reason != ReasonAudited {
			t.Errorf("events = %+v", e)
		}
		if got := f.ruleCount(defaultRule, DirEgress, VerdictAuditDeny); got != 1 {
			t.Errorf("rule counted %d times, want 1", got)
		}
	})
}

func (f *fixture) ruleCount(rule uint32, dir Direction, v Verdict) uint64 {
	f.t.Helper()
	var perCPU []Counter
	if err := f.maps.RuleStats.Lookup(&RuleKey{RuleID: rule, Dir: dir, Verdict: v}, &perCPU); err != nil {
		return 0
	}
	var n uint64
	for _, c := range perCPU {
		n += c.Packets
	}
	return n
}

// A running flow is judged again when the CIDR around its peer's address changes sides, and only then.
func TestFlowsFollowTheirBlock(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: blockIdentity, rule: 1})
		f.egress(tcp(c.pod, 4000, c.block, 80, "S").bytes(t)).passes(t, "allowed", HookPodEgress, ReasonForwarded)
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.block, 80, "A").bytes(t)).passes(t, "another policy changed", HookPodEgress, ReasonForwarded)

		f.class(blockIdentity, 20) // in no set any more
		f.egress(tcp(c.pod, 4000, c.block, 80, "A").bytes(t)).passes(t, "until the switch", HookPodEgress, ReasonForwarded)
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.block, 80, "A").bytes(t)).drops(t, "cut", HookPodEgress, ReasonDefaultDenied)

		f.must(f.maps.Identities.Delete(uint32(blockIdentity)))
		f.egress(tcp(c.pod, 4001, c.block, 80, "S").bytes(t)).drops(t, "its row is missing", HookPodEgress, ReasonNoPolicy)
	})
}

// Nobody vouches for an address of our own cluster: it could be a pod's that a policy denies, and is none that one allows.
func TestUnvouchedAddresses(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.ingress(tcp(c.unvouched, 4000, c.pod, 80, "S").bytes(t)).passes(t, "no policy", HookPodIngress, ReasonForwarded)
		f.rule(DirIngress, line{peer: friendIdentity, verdict: VerdictDeny, rule: 1})
		f.bumpEpoch()
		f.ingress(tcp(c.unvouched, 4000, c.pod, 80, "A").bytes(t)).drops(t, "a deny of somebody", HookPodIngress, ReasonPolicyDenied)
		f.removeRules(DirIngress)
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 2})
		f.bumpEpoch()
		f.ingress(tcp(c.unvouched, 4001, c.pod, 80, "S").bytes(t)).drops(t, "an allow of somebody", HookPodIngress, ReasonDefaultDenied)
		f.rule(DirIngress, line{rule: 3})
		f.bumpEpoch()
		f.ingress(tcp(c.unvouched, 4002, c.pod, 80, "S").bytes(t)).passes(t, "an allow of everybody", HookPodIngress, ReasonForwarded)

		// Once somebody vouches for it, a running flow is judged by who that is.
		f.removeRules(DirIngress)
		f.rule(DirIngress, line{peer: friendIdentity, rule: 4})
		f.address(c.unvouched, Remote{Identity: friendIdentity})
		f.raiseAddress(c.unvouched)
		f.bumpEpoch()
		f.ingress(tcp(c.unvouched, 4002, c.pod, 80, "A").bytes(t)).passes(t, "vouched for", HookPodIngress, ReasonForwarded)
	})
}
