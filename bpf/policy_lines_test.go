// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestPortRangesEndWhereTheySay(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{proto: 6, from: 80, to: 90, rule: 1})
		f.rule(DirEgress, line{proto: 17, from: 65535, to: 65535, rule: 2})
		f.rule(DirEgress, line{proto: 132, from: 0, to: 7, rule: 3})
		for port, allowed := range map[uint16]bool{0: false, 79: false, 80: true, 85: true, 90: true, 91: false, 65535: false} {
			f.expectPort(c, tcp(c.pod, 4000, c.friend, port, "S"), allowed, fmt.Sprintf("TCP %d", port))
		}
		for port, allowed := range map[uint16]bool{0: false, 80: false, 65534: false, 65535: true} {
			f.expectPort(c, udp(c.pod, 4000, c.friend, port), allowed, fmt.Sprintf("UDP %d", port))
		}
		f.expectPort(c, echo(c.pod, c.friend, 4000, false), false, "a ping has no port 80")
		f.rule(DirEgress, line{proto: pingProto(c), rule: 4})
		f.bumpEpoch()
		f.expectPort(c, echo(c.pod, c.friend, 4000, false), true, "pings without ports")
		f.rule(DirEgress, line{from: 7000, to: 7001, rule: 5})
		f.bumpEpoch()
		f.expectPort(c, tcp(c.pod, 4000, c.friend, 7001, "S"), true, "TCP, any protocol with the port")
		f.expectPort(c, udp(c.pod, 4000, c.friend, 7002), false, "UDP beyond it")
	})
}

func (f *fixture) expectPort(c cast, p *packetSpec, allowed bool, what string) {
	f.t.Helper()
	r := f.egress(p.bytes(f.t))
	if allowed {
		r.passes(f.t, what, HookPodEgress, ReasonForwarded)
		return
	}
	r.drops(f.t, what, HookPodEgress, ReasonDefaultDenied)
}

// A line that is the last of a chunk, the first of the next, or far behind decides as any other.
func TestGroupsOfManyChunks(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		for i, lines := range []int{1, GroupLines - 1, GroupLines, GroupLines + 1, 2 * GroupLines, 2*GroupLines + 1, 1000} {
			p := &testPolicy{flags: SubjectIsolated}
			for n := range lines - 1 {
				p.lines = append(p.lines, line{peer: blockIdentity, verdict: VerdictDeny, rule: uint32(n + 1)})
			}
			p.lines = append(p.lines, line{peer: friendIdentity, proto: 6, from: 80, rule: uint32(lines)})
			f.policies[DirEgress] = p
			f.publish(podIdentity, DirEgress)
			f.bumpEpoch()
			sport := uint16(4000 + i)
			f.egress(tcp(c.pod, sport, c.friend, 80, "S").bytes(t)).passes(t, fmt.Sprint(lines, " lines"), HookPodEgress, ReasonForwarded)
			if e, _ := f.flow(ctKey{c, c.friend, sport, 80, 6}); e.RuleID != uint32(lines) {
				t.Errorf("%d lines: rule %d decided, want the last", lines, e.RuleID)
			}
			f.egress(tcp(c.pod, sport, c.friend, 81, "S").bytes(t)).drops(t, "no line", HookPodEgress, ReasonDefaultDenied)
		}
	})
}

// What audit lines, passes and audit subjects do to each other, spelled out; TestPolicyAgreesWithOracle has the rest.
func TestAuditCombinations(t *testing.T) {
	const isolated, audit = SubjectIsolated, SubjectAudit
	allow, deny := line{rule: 1}, line{verdict: VerdictDeny, rule: 2}
	watch, watchToo := line{verdict: VerdictAuditDeny, rule: 3}, line{verdict: VerdictAuditDeny, rule: 4}
	elsewhere := line{peer: blockIdentity, rule: 5}
	auditAllow := line{verdict: VerdictAuditAllow, rule: 7}
	pass, auditPass, end := line{verdict: VerdictPass, rule: 1}, line{verdict: VerdictAuditPass, rule: 1}, line{ends: true}
	for _, tc := range []struct {
		what  string
		flags uint32
		lines []line
		want  answer
	}{
		{"nothing", 0, nil, answer{VerdictAllow, 0, ReasonForwarded}},
		{"isolated", isolated, nil, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"isolated, audited", isolated | audit, nil, answer{VerdictAuditDeny, defaultRule, ReasonAudited}},
		{"audit without isolation", audit, nil, answer{VerdictAllow, 0, ReasonForwarded}},
		{"audit line alone", 0, []line{watch}, answer{VerdictAuditDeny, 3, ReasonAudited}},
		{"audit line, isolated", isolated, []line{watch}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"audit line, isolated, audited", isolated | audit, []line{watch}, answer{VerdictAuditDeny, 3, ReasonAudited}},
		{"audit before allow", isolated, []line{watch, allow}, answer{VerdictAuditDeny, 3, ReasonAudited}},
		{"allow before audit", isolated, []line{allow, watch}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"the first audit line is named", isolated, []line{watch, watchToo, allow}, answer{VerdictAuditDeny, 3, ReasonAudited}},
		{"deny behind audit", isolated, []line{watch, deny, allow}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"deny beats an audited default", isolated | audit, []line{deny}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"deny without isolation", 0, []line{elsewhere, deny}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"allow before deny", 0, []line{allow, deny}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"allow of others only", isolated | audit, []line{elsewhere}, answer{VerdictAuditDeny, defaultRule, ReasonAudited}},
		{"audited allow before audit", 0, []line{auditAllow, watch}, answer{VerdictAllow, 0, ReasonForwarded}},
		{"audited allow, isolated, audited", isolated | audit, []line{auditAllow}, answer{VerdictAllow, 0, ReasonForwarded}},
		{"audited allow opens nothing", isolated, []line{auditAllow}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"audited allow before deny", 0, []line{auditAllow, deny}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"pass over a deny", 0, []line{pass, deny, end, allow}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"pass over an allow", isolated, []line{pass, allow, end, elsewhere}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"pass over all there is", isolated, []line{pass, allow}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"pass over an audit line", 0, []line{pass, watch, end, allow}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"pass of others only", 0, []line{{peer: blockIdentity, verdict: VerdictPass, rule: 1}, deny, end, allow}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"audit before pass", 0, []line{watch, pass, deny, end, allow}, answer{VerdictAuditDeny, 3, ReasonAudited}},
		{"audited pass over an allow, to a deny", 0, []line{auditPass, allow, end, deny}, answer{VerdictAuditDeny, 2, ReasonAudited}},
		{"audited pass over an allow, to an allow", isolated, []line{auditPass, allow, end, {rule: 6}}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"audited pass over an allow, to an audited allow", isolated, []line{auditPass, allow, end, auditAllow}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"audited pass over an allow, isolated", isolated, []line{auditPass, allow, end, elsewhere}, answer{VerdictAuditDeny, defaultRule, ReasonAudited}},
		{"audited pass over a deny", 0, []line{auditPass, deny, end, allow}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"audited pass over an audit line", 0, []line{auditPass, watch, end, allow}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"audited pass, then a pass", 0, []line{auditPass, pass, deny, end, watch, allow}, answer{VerdictAuditDeny, 3, ReasonAudited}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f *fixture, c cast) {
				for _, dir := range []Direction{DirEgress, DirIngress} {
					f.policies[dir] = &testPolicy{flags: tc.flags, lines: tc.lines}
					f.publish(podIdentity, dir)
					if got := f.asked(c, c.friend, dir, 6, 80); got != tc.want {
						t.Errorf("%s: %+v, want %+v", dir, got, tc.want)
					}
				}
			})
		})
	}
}

// Nobody knows whether a pass of somebody means a peer that nobody vouches for: it denies, and names no rule. TestPolicyAgreesWithOracle
// has the rest.
func TestPassesOfSomebodyDenyTheUnknown(t *testing.T) {
	const isolated = SubjectIsolated
	allow, end := line{rule: 1}, line{ends: true}
	pass, passSome := line{verdict: VerdictPass, rule: 1}, line{peer: friendIdentity, verdict: VerdictPass, rule: 1}
	auditSome := line{peer: friendIdentity, verdict: VerdictAuditPass, rule: 1}
	for _, tc := range []struct {
		what  string
		flags uint32
		lines []line
		want  answer
	}{
		{"pass of everybody", isolated, []line{pass, allow}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"pass of somebody", 0, []line{passSome, allow}, answer{VerdictDeny, 0, ReasonPolicyDenied}},
		{"pass of somebody, to an allow", 0, []line{passSome, end, allow}, answer{VerdictDeny, 0, ReasonPolicyDenied}},
		{"pass of somebody on another port", 0, []line{{peer: friendIdentity, proto: 6, from: 81, verdict: VerdictPass, rule: 1}, allow}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"allow before it", 0, []line{allow, passSome}, answer{VerdictAllow, 1, ReasonForwarded}},
		{"audited pass of somebody", 0, []line{auditSome, allow}, answer{VerdictAuditDeny, 0, ReasonAudited}},
		{"audited pass of somebody, then a deny", 0, []line{auditSome, {verdict: VerdictDeny, rule: 2}}, answer{VerdictDeny, 2, ReasonPolicyDenied}},
		{"allow and audited allow of somebody", isolated, []line{{peer: friendIdentity, rule: 1}, {peer: friendIdentity, verdict: VerdictAuditAllow, rule: 1}}, answer{VerdictDeny, defaultRule, ReasonDefaultDenied}},
		{"audited deny of somebody", 0, []line{{peer: friendIdentity, verdict: VerdictAuditDeny, rule: 3}, allow}, answer{VerdictAuditDeny, 3, ReasonAudited}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f *fixture, c cast) {
				f.policies[DirEgress] = &testPolicy{flags: tc.flags, lines: tc.lines}
				f.publish(podIdentity, DirEgress)
				if got := f.asked(c, c.unvouched, DirEgress, 6, 80); got != tc.want {
					t.Errorf("%+v, want %+v", got, tc.want)
				}
			})
		})
	}
}

// Numbers that can't be: a set beyond the last, more lines than anybody writes. Neither opens.
func TestImpossibleNumbersDontOpen(t *testing.T) {
	f, c := newFixture(t), cast4
	put := func(flags uint32, lines uint32, l ...PolicyLine) {
		t.Helper()
		row := Subject{Flags: flags, Group: f.group(l), Lines: lines, DefaultRule: defaultRule}
		for bank := range uint8(2) {
			f.must(f.maps.Subjects.Put(&SubjectKey{Identity: podIdentity, Dir: DirEgress, Bank: bank}, &row))
		}
		f.bumpEpoch()
	}
	syn := tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)
	put(SubjectIsolated, 1, PolicyLine{Set: SetCount, Verdict: VerdictAllow, RuleID: 1})
	f.egress(syn).drops(t, "nobody is in a set that can't be", HookPodEgress, ReasonDefaultDenied)
	put(0, 1, PolicyLine{Set: 65535, Verdict: VerdictDeny, RuleID: 1})
	f.egress(syn).drops(t, "a denial of it is for everybody", HookPodEgress, ReasonPolicyDenied)
	put(0, 2, PolicyLine{Set: 65535, Verdict: VerdictPass, RuleID: 1}, PolicyLine{Verdict: VerdictAllow, RuleID: 1})
	f.egress(syn).drops(t, "whom a pass of it is about, nobody knows", HookPodEgress, ReasonPolicyDenied)
	put(0, 2, PolicyLine{Set: 65535, Verdict: VerdictAuditPass, RuleID: 1}, PolicyLine{Verdict: VerdictAllow, RuleID: 1})
	f.egress(syn).passes(t, "nor whom an audited pass is about", HookPodEgress, ReasonAudited)
	put(SubjectIsolated|SubjectAudit, 1, PolicyLine{Set: 65535, Verdict: VerdictAuditAllow, RuleID: 1})
	f.egress(syn).passes(t, "nor whom an audited allow is about", HookPodEgress, ReasonAudited)
	for _, verdict := range []Verdict{VerdictNone, VerdictAuditPass + 1, 32 + VerdictAllow, 64 + VerdictAuditDeny, 255} {
		put(0, 1, PolicyLine{Verdict: verdict, RuleID: 1})
		f.egress(syn).drops(t, "a verdict that can't be", HookPodEgress, ReasonPolicyDenied)
	}
	put(0, GroupLines+1, append(endChunk([]PolicyLine{{Verdict: VerdictPass, RuleID: 1}}), PolicyLine{Verdict: VerdictPass, RuleID: 0})...)
	f.egress(syn).drops(t, "a pass behind a pass", HookPodEgress, ReasonNoPolicy)
	put(0, 1, PolicyLine{Verdict: VerdictPass, RuleID: 0})
	f.egress(syn).drops(t, "a pass to itself", HookPodEgress, ReasonNoPolicy)
	put(SubjectIsolated, 1, PolicyLine{Verdict: VerdictPass, RuleID: 1 << 31})
	f.egress(syn).drops(t, "a pass to nowhere", HookPodEgress, ReasonDefaultDenied)
	full := make([]PolicyLine, GroupLines)
	for i := range full {
		full[i] = PolicyLine{Set: 1, Verdict: VerdictAllow, RuleID: 1}
	}
	put(0, 1<<31, full...)
	f.egress(syn).drops(t, "two billion lines", HookPodEgress, ReasonNoPolicy)
}

// The index of an address's epoch is the same in C and in Go.
func TestAddressEpochIndexIsTheDatapaths(t *testing.T) {
	f := newFixture(t)
	keys, values := make([]uint32, AddressEpochs), make([]uint32, AddressEpochs)
	for i := range keys {
		keys[i], values[i] = uint32(i), uint32(i+1)
	}
	_, err := f.maps.AddressEpochs.BatchUpdate(keys, values, nil)
	f.must(err)
	t.Cleanup(func() {
		_, err := f.maps.AddressEpochs.BatchUpdate(keys, make([]uint32, AddressEpochs), nil)
		f.must(err)
	})
	seen := map[uint32]bool{}
	for i := range 300 {
		four, six := cast4.world.As4(), cast6.world.As16()
		four[1], four[2], four[3] = byte(i>>4), byte(i*7), byte(i*31)
		six[3+i%13] ^= byte(i) | 1
		six[15] = byte(i)
		for c, peer := range map[*cast]netip.Addr{&cast4: netip.AddrFrom4(four), &cast6: netip.AddrFrom16(six)} {
			f.egress(tcp(c.pod, 4000, peer, 80, "S").bytes(t))
			e, ok := f.flow(ctKey{*c, peer, 4000, 80, 6})
			want := AddressEpochIndex(peer)
			if !ok || e.AddressEpoch != want+1 {
				t.Fatalf("%s: flow %+v, %v, want the epoch at index %d", peer, e, ok, want)
			}
			seen[want] = true
		}
	}
	if len(seen) < 400 {
		t.Errorf("600 addresses share %d indices", len(seen))
	}
}
