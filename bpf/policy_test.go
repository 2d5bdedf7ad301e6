// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"pgregory.net/rapid"
)

// oracle is the policy of one subject and direction, said plainly.
type oracle struct {
	entries map[PolicyKey]PolicyEntry
	subject *Subject
}

// decide finds the best entry among all: highest precedence, then the
// strictest verdict, then the most specific (peer, protocol, port in the order
// in which the datapath looks).
func (o oracle) decide(peer uint32, proto uint8, dport uint16) (Verdict, uint32) {
	if o.subject == nil {
		return VerdictAllow, 0
	}
	var best *PolicyEntry
	for kind := range 4 {
		for length := 16; length >= 0; length-- {
			if proto != 6 && proto != 17 && proto != 132 && length > 0 {
				continue // no ports to match
			}
			k := PolicyKey{Subject: podIdentity, Peer: peer, Proto: proto, Dir: DirEgress, PortPrefix: uint8(length)}
			if kind&2 != 0 {
				k.Peer = 0
			}
			if kind&1 != 0 {
				k.Proto = 0
			}
			k.Port = maskPort(dport, length)
			e, ok := o.entries[k]
			if ok && (best == nil || rank(e) > rank(*best)) {
				best = &e
			}
		}
	}
	switch {
	case best != nil:
		return best.Verdict, best.RuleID
	case o.subject.Flags&SubjectIsolated == 0:
		return VerdictAllow, 0
	case o.subject.Flags&SubjectAudit != 0:
		return VerdictAuditDeny, o.subject.DefaultRule
	}
	return VerdictDeny, o.subject.DefaultRule
}

func rank(e PolicyEntry) uint64 {
	strictness := map[Verdict]uint64{VerdictAllow: 0, VerdictAuditDeny: 1, VerdictDeny: 2}
	return uint64(e.Precedence)*3 + strictness[e.Verdict]
}

func maskPort(port uint16, length int) uint16 {
	return uint16(uint32(port) & (0xffff << (16 - length)))
}

// The kernel's answer is the oracle's, whatever the policy.
func TestPolicyAgreesWithOracle(t *testing.T) {
	f, c := newFixture(t), cast4
	epoch := f.cfg.PolicyEpoch
	peers := map[uint32]string{friendIdentity: "friend", IdentityWorld: "world"}
	rapid.Check(t, func(rt *rapid.T) {
		o := drawPolicy(rt)
		f.install(o)
		defer f.uninstall(o)
		for range 6 {
			peer := rapid.SampledFrom([]uint32{friendIdentity, IdentityWorld}).Draw(rt, "peer")
			proto := rapid.SampledFrom([]uint8{6, 17, 1}).Draw(rt, "proto")
			dport := rapid.Uint16Range(0, 31).Draw(rt, "dport") * 2047
			to := c.friend
			if peer == IdentityWorld {
				to = c.world
			}
			var p *packetSpec
			switch proto {
			case 6:
				p = tcp(c.pod, 4000, to, dport, "S")
			case 17:
				p = udp(c.pod, 4000, to, dport)
			default:
				p, dport = echo(c.pod, to, 4000, false), 0
			}
			epoch++ // a new epoch judges flows of earlier rounds anew
			f.configure(Config{PolicyEpoch: epoch})
			f.events() // forget
			r := f.egress(p.bytes(t))
			verdict, rule := o.decide(peer, proto, dport)
			if got := r.action == tcActDrop; got != (verdict == VerdictDeny) {
				rt.Fatalf("%s proto %d port %d: dropped %v, oracle says %s by rule %d", peers[peer], proto, dport, got, verdict, rule)
			}
			if got := f.ruleOf(p, dport, c); verdict != VerdictDeny && got != rule {
				rt.Fatalf("%s proto %d port %d: rule %d, oracle says %d", peers[peer], proto, dport, got, rule)
			}
		}
	})
}

// ruleOf reads the rule that a flow of the pod's remembers.
func (f *fixture) ruleOf(p *packetSpec, dport uint16, c cast) uint32 {
	e, _ := f.flow(ctKey{c: c, peer: p.to, podPort: 4000, peerPort: dport, proto: uint8(p.proto)})
	return e.RuleID
}

func drawPolicy(rt *rapid.T) oracle {
	o := oracle{entries: map[PolicyKey]PolicyEntry{}}
	if rapid.IntRange(0, 9).Draw(rt, "absent") == 0 {
		return o
	}
	o.subject = &Subject{DefaultRule: defaultRule}
	o.subject.Flags = rapid.SampledFrom([]uint32{0, SubjectIsolated, SubjectIsolated | SubjectAudit}).Draw(rt, "flags")
	for i := range rapid.IntRange(0, 12).Draw(rt, "entries") {
		length := rapid.SampledFrom([]int{0, 0, 1, 4, 5, 11, 15, 16, 16}).Draw(rt, "prefix")
		port := rapid.Uint16Range(0, 31).Draw(rt, "port") * 2047
		k := PolicyKey{
			Subject:    podIdentity,
			Peer:       rapid.SampledFrom([]uint32{0, friendIdentity, IdentityWorld}).Draw(rt, "peer"),
			Proto:      rapid.SampledFrom([]uint8{0, 6, 17, 1}).Draw(rt, "proto"),
			Port:       maskPort(port, length),
			PortPrefix: uint8(length),
			Dir:        DirEgress,
		}
		o.entries[k] = PolicyEntry{
			Precedence: rapid.Uint32Range(0, 3).Draw(rt, "precedence"),
			RuleID:     uint32(i + 1),
			Verdict:    rapid.SampledFrom([]Verdict{VerdictAllow, VerdictDeny, VerdictAuditDeny}).Draw(rt, "verdict"),
		}
		o.subject.Prefixes[kindOf(k)] |= 1 << length
	}
	return o
}

func (f *fixture) install(o oracle) {
	for k, e := range o.entries {
		f.must(f.maps.Policy.Put(&k, &e))
	}
	if o.subject != nil {
		f.must(f.maps.Subjects.Put(&SubjectKey{Identity: podIdentity, Dir: DirEgress}, o.subject))
	}
}

func (f *fixture) uninstall(o oracle) {
	for k := range o.entries {
		f.must(f.maps.Policy.Delete(&k))
	}
	if o.subject != nil {
		f.must(f.maps.Subjects.Delete(&SubjectKey{Identity: podIdentity, Dir: DirEgress}))
	}
}

func TestUnknownVerdictDenies(t *testing.T) {
	f, c := newFixture(t), cast4
	f.rule(PolicyKey{Peer: friendIdentity, Dir: DirEgress}, PolicyEntry{RuleID: 5, Verdict: 99})
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
