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

func pingProto(c cast) uint8 {
	if c.family == 10 {
		return 58
	}
	return 1
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

// What audit lines and audit subjects do to each other, spelled out; TestPolicyAgreesWithOracle has the rest.
func TestAuditCombinations(t *testing.T) {
	const isolated, audit = SubjectIsolated, SubjectAudit
	allow, deny := line{rule: 1}, line{verdict: VerdictDeny, rule: 2}
	watch, watchToo := line{verdict: VerdictAuditDeny, rule: 3}, line{verdict: VerdictAuditDeny, rule: 4}
	elsewhere := line{peer: blockIdentity, rule: 5}
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
