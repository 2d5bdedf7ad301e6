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
