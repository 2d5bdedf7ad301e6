// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"
)

// Types of ICMP messages, by family.
const (
	type4Answer, type4Redirect, type4Ping, type4Router, type4Timestamp, type4TimestampAnswer = 0, 5, 8, 9, 13, 14
	type6Ping, type6Answer, type6Redirect, type6Node, type6NodeAnswer                        = 128, 129, 137, 139, 140
)

func pingProto(c cast) uint8 {
	if c.family == 10 {
		return 58
	}
	return 1
}

func (c cast) pingType() uint8 {
	if c.family == 10 {
		return type6Ping
	}
	return type4Ping
}

func (c cast) answerType() uint8 {
	if c.family == 10 {
		return type6Answer
	}
	return type4Answer
}

// pingPort is what a ping has in place of a destination port.
func (c cast) pingPort() uint16 { return uint16(c.pingType()) + 1 }

// otherTypes are those that are no pings, no errors and not of the link's neighbours.
func (c cast) otherTypes() []uint8 {
	if c.family == 10 {
		return []uint8{type6Redirect, type6Node, type6NodeAnswer, 130, 160, 161, 200, 255}
	}
	return []uint8{type4Redirect, type4Router, type4Timestamp, type4TimestampAnswer, 15, 17, 42, 43, 200, 255}
}

// typeLine is a line about messages of one type.
func (c cast) typeLine(typ uint8, rule uint32) line {
	return line{proto: pingProto(c), from: uint16(typ) + 1, rule: rule}
}

// A ping that is allowed covers its answer and nothing else, whatever its id is.
func TestAPingCoversItsAnswerAlone(t *testing.T) {
	for _, id := range []uint16{0, 7, type4Ping + 1, type6Ping + 1, 65535} {
		t.Run(fmt.Sprint("id ", id), func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f *fixture, c cast) {
				f.isolate(DirEgress, 0)
				f.isolate(DirIngress, 0)
				f.rule(DirEgress, c.typeLine(c.pingType(), 1))
				f.ingress(echo(c.friend, c.pod, id, true).bytes(t)).drops(t, "an answer to nothing", HookPodIngress, ReasonDefaultDenied)
				f.egress(echo(c.pod, c.friend, id, false).bytes(t)).passes(t, "the ping", HookPodEgress, ReasonForwarded)
				f.ingress(echo(c.friend, c.pod, id, true).bytes(t)).passes(t, "its answer", HookPodIngress, ReasonForwarded)
				f.ingress(echo(c.friend, c.pod, id+1, true).bytes(t)).drops(t, "an answer to another", HookPodIngress, ReasonDefaultDenied)
				f.ingress(echo(c.friend, c.pod, id, false).bytes(t)).drops(t, "a ping the other way", HookPodIngress, ReasonDefaultDenied)
				f.egress(echo(c.pod, c.friend, id, true).bytes(t)).drops(t, "an answer the other way", HookPodEgress, ReasonDefaultDenied)
				for _, typ := range c.otherTypes() {
					for _, n := range []uint16{0, id, uint16(typ) + 1} {
						what := fmt.Sprintf("type %d, id %d", typ, n)
						f.egress(message(c.pod, c.friend, typ, n).bytes(t)).drops(t, what, HookPodEgress, ReasonDefaultDenied)
						f.ingress(message(c.friend, c.pod, typ, n).bytes(t)).drops(t, what, HookPodIngress, ReasonDefaultDenied)
					}
				}
			})
		})
	}
}

// Of messages with answers the answer passes with the question, of others only what is named.
func TestTypesAreJudgedByThemselves(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		answers := map[uint8]uint8{type4Ping: type4Answer, type4Timestamp: type4TimestampAnswer, 15: 16, 17: 18, 42: 43}
		isError := func(typ uint8) bool { return typ == 3 || typ == 4 || typ == 11 || typ == 12 }
		if c.family == 10 {
			answers = map[uint8]uint8{type6Ping: type6Answer, type6Node: type6NodeAnswer, 160: 161}
			isError = func(typ uint8) bool { return typ < 128 }
		}
		f.isolate(DirEgress, 0)
		f.isolate(DirIngress, 0)
		for n := range 256 {
			typ := uint8(n)
			if isError(typ) {
				continue
			}
			f.removeRules(DirEgress)
			f.rule(DirEgress, c.typeLine(typ, 1))
			f.judgeAllAnew()
			what := fmt.Sprint("type ", typ)
			f.egress(message(c.pod, c.friend, typ, 77).bytes(t)).passes(t, what, HookPodEgress, ReasonForwarded)
			if other := typ ^ 1; !isError(other) {
				f.egress(message(c.pod, c.friend, other, 77).bytes(t)).drops(t, what+", its neighbour", HookPodEgress, ReasonDefaultDenied)
			}
			f.ingress(message(c.friend, c.pod, typ, 77).bytes(t)).drops(t, what+", the other way", HookPodIngress, ReasonDefaultDenied)
			if answer, has := answers[typ]; has {
				f.ingress(message(c.friend, c.pod, answer, 77).bytes(t)).passes(t, what+", answered", HookPodIngress, ReasonForwarded)
				f.ingress(message(c.friend, c.pod, answer, 78).bytes(t)).drops(t, what+", another's answer", HookPodIngress, ReasonDefaultDenied)
			}
		}
	})
}

// Who may send answers that nobody asked for has not asked, nor been asked.
func TestUnaskedAnswersOpenNothing(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		for _, dir := range []Direction{DirEgress, DirIngress} {
			f.isolate(dir, 0)
			f.rule(dir, c.typeLine(c.answerType(), 1))
		}
		for _, id := range []uint16{0, 7, c.pingPort()} {
			f.ingress(echo(c.friend, c.pod, id, true).bytes(t)).passes(t, "unasked", HookPodIngress, ReasonForwarded)
			f.egress(echo(c.pod, c.friend, id, true).bytes(t)).passes(t, "unasked, from the pod", HookPodEgress, ReasonForwarded)
			f.egress(echo(c.pod, c.friend, id, false).bytes(t)).drops(t, "asked afterwards", HookPodEgress, ReasonDefaultDenied)
			f.ingress(echo(c.friend, c.pod, id, false).bytes(t)).drops(t, "asked by the other side", HookPodIngress, ReasonDefaultDenied)
			f.ingress(echo(c.friend, c.pod, id, true).bytes(t)).passes(t, "unasked still", HookPodIngress, ReasonForwarded)
		}
		f.egress(echo(c.pod, c.remote, 9, true).bytes(t)).tunnels(t, "unasked, to another cluster")
		f.rule(DirEgress, c.typeLine(c.pingType(), 2))
		f.removeRules(DirIngress)
		f.bumpEpoch()
		f.ingress(echo(c.friend, c.pod, 7, true).bytes(t)).drops(t, "unasked, no longer allowed", HookPodIngress, ReasonDefaultDenied)
		f.egress(echo(c.pod, c.friend, 7, false).bytes(t)).passes(t, "the ping", HookPodEgress, ReasonForwarded)
		f.ingress(echo(c.friend, c.pod, 7, true).bytes(t)).passes(t, "its answer", HookPodIngress, ReasonForwarded)
	})
}

// A ping is judged again as a ping, whichever packet comes first, and errors about it go with it.
func TestPingsFollowPolicyAndCarryErrors(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.isolate(DirIngress, 0)
		f.rule(DirEgress, c.typeLine(c.pingType(), 1))
		ask, answer := echo(c.pod, c.friend, 7, false), echo(c.friend, c.pod, 7, true)
		refusal := unreachable(t, c.friend, c.pod, ask)
		stray := unreachable(t, c.friend, c.pod, echo(c.pod, c.friend, 8, false))
		late := unreachable(t, c.pod, c.friend, answer)
		f.ingress(refusal.bytes(t)).drops(t, "an error about nothing", HookPodIngress, ReasonUnrelated)
		f.egress(ask.bytes(t)).passes(t, "the ping", HookPodEgress, ReasonForwarded)
		f.ingress(refusal.bytes(t)).passes(t, "an error about it", HookPodIngress, ReasonRelated)
		f.egress(late.bytes(t)).passes(t, "an error about the answer", HookPodEgress, ReasonRelated)
		f.ingress(stray.bytes(t)).drops(t, "an error about another", HookPodIngress, ReasonUnrelated)
		f.ingress(unreachable(t, c.friend, c.pod, message(c.pod, c.friend, c.otherTypes()[0], 7)).bytes(t)).
			drops(t, "an error about another type", HookPodIngress, ReasonUnrelated)

		f.bumpEpoch()
		f.judgeAllAnew()
		f.ingress(answer.bytes(t)).passes(t, "the answer, judged again", HookPodIngress, ReasonForwarded)
		if e, ok := f.flow(ctKey{c, c.friend, 7, c.pingPort(), pingProto(c)}); !ok || e.RuleID != 1 || e.Flags&CTByPod == 0 {
			t.Errorf("flow = %+v, %t", e, ok)
		}
		f.removeRules(DirEgress)
		f.judgeAllAnew()
		f.ingress(answer.bytes(t)).drops(t, "the answer to what is denied now", HookPodIngress, ReasonDefaultDenied)
		f.egress(ask.bytes(t)).drops(t, "the ping", HookPodEgress, ReasonDefaultDenied)
		f.ingress(refusal.bytes(t)).drops(t, "an error about it", HookPodIngress, ReasonUnrelated)
	})
}

// A denial of one type doesn't stand for another, in the same tick either.
func TestDenialsAreRememberedByType(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		deny := c.typeLine(c.pingType(), 1)
		deny.verdict = VerdictDeny
		f.rule(DirIngress, deny)
		f.ingress(echo(c.friend, c.pod, 7, false).bytes(t)).drops(t, "the ping", HookPodIngress, ReasonPolicyDenied)
		// Its id is what a ping has as port.
		f.ingress(echo(c.friend, c.pod, c.pingPort(), true).bytes(t)).passes(t, "an answer", HookPodIngress, ReasonForwarded)
		for _, typ := range c.otherTypes() {
			f.ingress(message(c.friend, c.pod, typ, 7).bytes(t)).passes(t, fmt.Sprint("type ", typ), HookPodIngress, ReasonForwarded)
		}
		f.ingress(echo(c.friend, c.pod, 8, false).bytes(t)).drops(t, "the next ping", HookPodIngress, ReasonPolicyDenied)
	})
}

// A fragmented ping and its fragmented answer are one flow.
func TestFragmentsOfPings(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.isolate(DirIngress, 0)
		f.rule(DirEgress, c.typeLine(c.pingType(), 1))
		whole := func(answer bool) *packetSpec {
			p := echo(c.pod, c.friend, 7, false)
			if answer {
				p = echo(c.friend, c.pod, 7, true)
			}
			return p.data(append(p.payload, make([]byte, 64)...))
		}
		first := func(answer bool) []byte { return whole(answer).fragment(3, 0, true).bytes(t) }
		later := func(answer bool) []byte { return whole(answer).fragment(3, 1024, false).bytes(t) }
		f.egress(first(false)).passes(t, "first", HookPodEgress, ReasonForwarded)
		f.egress(later(false)).passes(t, "later", HookPodEgress, ReasonForwarded)
		f.ingress(first(true)).passes(t, "the answer's first", HookPodIngress, ReasonForwarded)
		f.ingress(later(true)).passes(t, "the answer's later", HookPodIngress, ReasonForwarded)
	})
}

// Events have the id as source and the type as destination port, whichever way the packet goes.
func TestEventsTellTheType(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		ports := func(what string, sport uint16, typ uint8) {
			t.Helper()
			all := f.events()
			if len(all) != 1 || all[0].Sport != sport || all[0].Dport != uint16(typ)+1 {
				t.Errorf("%s: events are %+v, want one of id %d and type %d", what, all, sport, typ)
			}
		}
		f.egress(echo(c.pod, c.friend, 7, false).bytes(t))
		ports("a ping", 7, c.pingType())
		f.isolate(DirEgress, 0)
		f.judgeAllAnew()
		f.ingress(echo(c.friend, c.pod, 7, true).bytes(t))
		ports("an answer to what is denied now", 7, c.answerType())
		f.isolate(DirIngress, 0)
		f.bumpEpoch()
		f.ingress(echo(c.friend, c.pod, 9, true).bytes(t))
		ports("an answer to nothing", 9, c.answerType())
		f.ingress(message(c.friend, c.pod, c.otherTypes()[0], 7).bytes(t))
		ports("without an id", 0, c.otherTypes()[0])
		f.ingress(unreachable(t, c.friend, c.pod, udp(c.pod, 1, c.friend, 2)).bytes(t))
		ports("an error", 0, map[bool]uint8{true: 3, false: 1}[c.family != 10])
	})
}
