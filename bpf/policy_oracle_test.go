// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// oracle is the policy of one subject and direction, and who is in which set, said plainly.
type oracle struct {
	flags   uint32
	lines   []PolicyLine
	members map[uint32]map[uint16]bool // sets by identity
}

// answer is what the oracle expects of a packet.
type answer struct {
	verdict Verdict
	rule    uint32
	reason  Reason
}

// oraclePeer is who has an address, and the CIDR around it that policies name; 0: none. Nobody vouches for identity 0.
type oraclePeer struct {
	addr            netip.Addr
	identity, block uint32
}

func oraclePeers(c cast) []oraclePeer {
	return []oraclePeer{
		{c.friend, friendIdentity, 0}, {c.world, IdentityWorld, 0}, {c.block, IdentityWorld, blockIdentity},
		{c.block.Next(), friendIdentity, blockIdentity}, {c.unvouched, IdentityUnknown, 0},
		{c.host, IdentityHost, 0}, {c.block.Next().Next(), IdentityHost, blockIdentity},
	}
}

// decide asks twice: what enforcing lines say, and what all of them would say if audit lines enforced. Where only the second
// denies, the packet passes and is reported.
func (o oracle) decide(dir Direction, peer oraclePeer, proto uint8, dport uint16) answer {
	if peer.identity == IdentityHost && dir == DirIngress {
		return answer{VerdictAllow, 0, ReasonHost} // a node may always talk to its pods
	}
	enforced := o.walk(false, peer, proto, dport)
	if enforced.verdict == VerdictDeny {
		return enforced
	}
	if all := o.walk(true, peer, proto, dport); all.verdict == VerdictDeny {
		return answer{VerdictAuditDeny, all.rule, ReasonAudited}
	}
	return enforced
}

// walk goes through the lines, with or without those of audit.
func (o oracle) walk(audit bool, peer oraclePeer, proto uint8, dport uint16) answer {
	for i := 0; i < len(o.lines); i++ {
		l := o.lines[i]
		if !o.matches(l, peer, proto, dport) {
			continue
		}
		verdict := l.Verdict
		if enforcing, is := audits[verdict]; is {
			if !audit {
				continue
			}
			verdict = enforcing
		}
		if verdict == VerdictPass && l.Set != 0 && peer.identity == IdentityUnknown {
			return answer{VerdictDeny, 0, ReasonPolicyDenied} // nobody knows whether it is passed
		}
		switch verdict {
		case VerdictDeny:
			return answer{VerdictDeny, l.RuleID, ReasonPolicyDenied}
		case VerdictAllow:
			return answer{VerdictAllow, l.RuleID, peer.allowed()}
		case VerdictPass:
			i = int(l.RuleID)*GroupLines - 1
		}
	}
	own := peer.identity == IdentityHost && o.flags&SubjectClosed == 0
	if o.flags&SubjectIsolated != 0 && (audit || o.flags&SubjectAudit == 0) && !own {
		return answer{VerdictDeny, defaultRule, ReasonDefaultDenied}
	}
	return answer{VerdictAllow, 0, peer.allowed()}
}

func (p oraclePeer) allowed() Reason {
	if p.identity == IdentityHost {
		return ReasonHost
	}
	return ReasonForwarded
}

// audits are the verdicts of policies in Audit mode, with what they would be if these enforced.
var audits = map[Verdict]Verdict{
	VerdictAuditDeny: VerdictDeny, VerdictAuditAllow: VerdictAllow, VerdictAuditPass: VerdictPass,
}

func (o oracle) matches(l PolicyLine, peer oraclePeer, proto uint8, dport uint16) bool {
	in := l.Set == 0 || o.members[peer.identity][l.Set] || o.flags&SubjectBlocks != 0 && o.members[peer.block][l.Set]
	if peer.identity == IdentityUnknown { // it could be anybody
		in = l.Set == 0 || l.Verdict != VerdictAllow && l.Verdict != VerdictAuditAllow
	}
	if peer.identity == IdentityHost && l.Set == 0 { // denied by lines that name it only
		in = l.Verdict != VerdictDeny && l.Verdict != VerdictAuditDeny
	}
	if !in || l.Proto != 0 && l.Proto != proto {
		return false
	}
	if l.PortFrom == 0 && l.PortTo == 0 {
		return true
	}
	return l.PortFrom <= dport && dport <= l.PortTo // of a ping: its type + 1
}

var (
	oracleIdentities = []uint32{friendIdentity, IdentityWorld, blockIdentity, IdentityHost}

	oracleSets  = []uint16{0, 1, 2, 63, 64, 65, 2047}
	oraclePorts = []uint16{0, 1, 8, 9, 10, 79, 80, 81, 128, 129, 130, 32767, 32768, 65534, 65535}
)

func drawPolicy(rt *rapid.T) oracle {
	o := oracle{members: map[uint32]map[uint16]bool{}}
	o.flags = rapid.SampledFrom([]uint32{0, SubjectIsolated, SubjectIsolated | SubjectAudit, SubjectAudit, SubjectIsolated | SubjectClosed}).Draw(rt, "flags")
	if rapid.Bool().Draw(rt, "blocks") {
		o.flags |= SubjectBlocks
	}
	for _, id := range oracleIdentities {
		o.members[id] = map[uint16]bool{}
		for _, s := range oracleSets[1:] {
			o.members[id][s] = rapid.Bool().Draw(rt, "member")
		}
	}
	// Mostly a few lines; at times more than one chunk, and the ends of chunks.
	n := rapid.OneOf(rapid.IntRange(0, 8), rapid.SampledFrom([]int{31, 32, 33, 64, 70})).Draw(rt, "lines")
	add := func(rule int, verdicts ...Verdict) {
		from, to := rapid.SampledFrom(oraclePorts).Draw(rt, "from"), rapid.SampledFrom(oraclePorts).Draw(rt, "to")
		o.lines = append(o.lines, PolicyLine{
			Set:      rapid.SampledFrom(oracleSets).Draw(rt, "set"),
			Proto:    rapid.SampledFrom([]uint8{0, 6, 17, 1, 58}).Draw(rt, "proto"),
			PortFrom: min(from, to), PortTo: max(from, to),
			RuleID:  uint32(rule),
			Verdict: rapid.SampledFrom(verdicts).Draw(rt, "verdict"),
		})
	}
	// Only the first tier has lines that pass, all to the chunk behind it.
	tier := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 8), rapid.SampledFrom([]int{31, 32, 33})).Draw(rt, "first tier")
	chunk := (tier + GroupLines - 1) / GroupLines
	for i := range tier {
		add(i+1000, VerdictAllow, VerdictDeny, VerdictAuditDeny, VerdictAuditAllow, VerdictPass, VerdictAuditPass)
		if l := &o.lines[i]; l.Verdict == VerdictPass || l.Verdict == VerdictAuditPass {
			l.RuleID = uint32(chunk)
		}
	}
	o.lines = endChunk(o.lines)
	for i := range n {
		add(i+1, VerdictAllow, VerdictDeny, VerdictAuditDeny, VerdictAuditAllow)
	}
	return o
}

// install makes the oracle's policy the pod's, and forgets what was judged before.
func (f *fixture) install(o oracle) {
	f.t.Helper()
	for i, id := range oracleIdentities {
		var sets []uint16
		for s, in := range o.members[id] {
			if in {
				sets = append(sets, s)
			}
		}
		f.class(id, uint32(i+1), sets...)
	}
	row := Subject{Flags: o.flags, Group: f.group(o.lines), Lines: uint32(len(o.lines)), DefaultRule: defaultRule}
	for _, dir := range []Direction{DirEgress, DirIngress} {
		for bank := range uint8(2) {
			f.must(f.maps.Subjects.Put(&SubjectKey{Identity: podIdentity, Dir: dir, Bank: bank}, &row))
		}
	}
	f.judgeAllAnew()
}

// judgeAllAnew moves both epochs: no verdict of before holds.
func (f *fixture) judgeAllAnew() {
	f.t.Helper()
	f.cfg.PolicyEpoch++
	f.cfg.FullEpoch = f.cfg.PolicyEpoch
	f.configure(f.cfg)
}

// The kernel's answer is the oracle's, whatever the policy, in both families and directions, for flows that are new and
// for flows that ran under another policy.
func TestPolicyAgreesWithOracle(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.address(c.block.Next(), Remote{Identity: friendIdentity})
		f.address(c.block.Next().Next(), Remote{Identity: IdentityHost, Flags: RemoteHost})
		rapid.Check(t, func(rt *rapid.T) {
			o := drawPolicy(rt)
			f.install(o)
			defer func() { _ = f.maps.Groups.Delete(&GroupKey{Group: f.lastGroup}) }()
			for range 6 {
				peer := rapid.SampledFrom(oraclePeers(c)).Draw(rt, "peer")
				proto := rapid.SampledFrom([]uint8{6, 17, pingProto(c)}).Draw(rt, "proto")
				dport := rapid.SampledFrom(oraclePorts).Draw(rt, "dport")
				if proto == pingProto(c) {
					dport = c.pingPort()
				}
				dir := rapid.SampledFrom([]Direction{DirEgress, DirIngress}).Draw(rt, "dir")
				want := o.decide(dir, peer, proto, dport)
				if got := f.asked(c, peer.addr, dir, proto, dport); got != want {
					rt.Fatalf("%s, %s, proto %d port %d: %+v, oracle says %+v\n%+v", peer.addr, dir, proto, dport, got, want, o)
				}
			}
		})
	})
}

// asked sends a packet and gathers what the datapath decided.
func (f *fixture) asked(c cast, peer netip.Addr, dir Direction, proto uint8, dport uint16) answer {
	f.t.Helper()
	from, to, send := c.pod, peer, f.egress
	if dir == DirIngress {
		from, to, send = peer, c.pod, f.ingress
	}
	var p *packetSpec
	switch proto {
	case 6:
		p = tcp(from, 4000, to, dport, "S")
	case 17:
		p = udp(from, 4000, to, dport)
	default:
		p = echo(from, to, 4000, false)
	}
	r := send(p.bytes(f.t))
	var got answer
	for i := range r.delta {
		got.reason, _ = MetricOf(i)
	}
	if r.action == tcActDrop {
		got.verdict, got.rule = f.lastDenial(peer, dport, uint8(p.proto), dir)
		return got
	}
	key := ctKey{c: c, peer: peer, podPort: 4000, peerPort: dport, proto: uint8(p.proto)}
	if dir == DirIngress {
		key.podPort, key.peerPort = dport, 4000
	}
	e, _ := f.flow(key)
	got.verdict, got.rule = VerdictAllow, e.RuleID
	if e.Flags&CTAudit != 0 {
		got.verdict = VerdictAuditDeny
	}
	if e.Flags&CTDenied != 0 {
		got.verdict = VerdictDeny
	}
	return got
}

// lastDenial reads the rule of a denial: from the flow that was cut, or from what is remembered of the attempt.
func (f *fixture) lastDenial(peer netip.Addr, dport uint16, proto uint8, dir Direction) (Verdict, uint32) {
	f.t.Helper()
	c := cast4
	if peer.Is6() {
		c = cast6
	}
	key := ctKey{c: c, peer: peer, podPort: 4000, peerPort: dport, proto: proto}
	if dir == DirIngress {
		key.podPort, key.peerPort = dport, 4000
	}
	if e, ok := f.flow(key); ok && e.Flags&CTDenied != 0 && e.Epoch == f.cfg.PolicyEpoch {
		return VerdictDeny, e.RuleID
	}
	dk := DeniedKey{Peer: wide(peer), Subject: podIdentity, Port: dport, Proto: proto, Dir: dir}
	_, d := findRow(f, f.maps.Denied, func(d Denied) bool { return d.Key == dk })
	return VerdictDeny, d.RuleID
}
