// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// policyMaps are the maps that policy lies in, with the subjects of the bank in force.
type policyMaps struct {
	subjects   map[bpf.SubjectKey]bpf.Subject // bank 0 in the key
	identities map[uint32]bpf.IdentityClass
	classes    map[uint32]bpf.ClassSets
	groups     map[bpf.GroupKey]bpf.GroupChunk
}

func (k *kernel) policy() policyMaps {
	p := policyMaps{
		subjects: map[bpf.SubjectKey]bpf.Subject{}, identities: k.identities.all(), classes: k.classes.all(), groups: k.groups.all(),
	}
	cfg, _ := k.config.get("config")
	for key, s := range k.subjects.all() {
		if uint32(key.Bank) == cfg.PolicyEpoch&1 {
			key.Bank = 0
			p.subjects[key] = s
		}
	}
	return p
}

// decision is what the maps say of a packet.
type decision struct {
	verdict bpf.Verdict
	by      decider
	rule    uint32
}

type decider uint8

const (
	byLine decider = iota
	byDefault
	byAbsence // a row that would say it isn't there
)

// noPort is that of protocols without ports.
const noPort = -1

// decide reads the maps as bpf/lib/policy.h does (ADR 0005 and 0010). A CIDR's identity stands for an address of the world in it.
func (p policyMaps) decide(subject bpf.SubjectKey, peer uint32, proto uint8, port int) decision {
	block := uint32(0)
	if identity.IsCIDR(peer) {
		peer, block = bpf.IdentityWorld, peer
	}
	s, selected := p.subjects[subject]
	class, known := p.identities[peer]
	sets := p.classes[class.Class].Sets // an array: a row that nobody wrote is in no set
	if known && block != 0 && s.Flags&bpf.SubjectBlocks != 0 {
		class, known = p.identities[block]
		for i, word := range p.classes[class.Class].Sets {
			sets[i] |= word
		}
	}
	if !selected || !known {
		return decision{bpf.VerdictDeny, byAbsence, 0}
	}
	for chunk := uint32(0); chunk*bpf.GroupLines < s.Lines; chunk++ {
		if _, ok := p.groups[bpf.GroupKey{Group: s.Group, Chunk: chunk}]; !ok {
			return decision{bpf.VerdictDeny, byAbsence, 0}
		}
	}
	own := peer == bpf.IdentityHost
	d := walk(s, p.lines(subject), own, false, sets, proto, port)
	if d.verdict != bpf.VerdictDeny {
		if all := walk(s, p.lines(subject), own, true, sets, proto, port); all.verdict == bpf.VerdictDeny {
			return decision{bpf.VerdictAuditDeny, all.by, all.rule}
		}
	}
	return d
}

// walk goes through a subject's lines, with those of audit as if they enforced, or without them (ADR 0010). Its own node is
// denied by lines that name it only.
func walk(s bpf.Subject, lines []bpf.PolicyLine, own, audit bool, sets [bpf.SetWords]uint64, proto uint8, port int) decision {
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		v, counts := l.Verdict, true
		switch v {
		case bpf.VerdictAuditDeny:
			v, counts = bpf.VerdictDeny, audit
		case bpf.VerdictAuditAllow:
			v, counts = bpf.VerdictAllow, audit
		case bpf.VerdictAuditPass:
			v, counts = bpf.VerdictPass, audit
		}
		switch {
		case !counts:
		case own && l.Set == 0 && v == bpf.VerdictDeny:
		case l.Set >= bpf.SetCount && v == bpf.VerdictAllow: // nobody knows whom it means
		case l.Set != 0 && l.Set < bpf.SetCount && sets[l.Set/64]>>(l.Set%64)&1 == 0:
		case l.Proto != 0 && l.Proto != proto:
		case (l.PortFrom != 0 || l.PortTo != 0) && (port < int(l.PortFrom) || port > int(l.PortTo)):
		case v == bpf.VerdictPass:
			i = max(i, int(l.RuleID)*bpf.GroupLines-1)
		case v == bpf.VerdictAllow:
			return decision{bpf.VerdictAllow, byLine, l.RuleID}
		default:
			return decision{bpf.VerdictDeny, byLine, l.RuleID}
		}
	}
	spared := own && s.Flags&bpf.SubjectClosed == 0
	if s.Flags&bpf.SubjectIsolated != 0 && (audit || s.Flags&bpf.SubjectAudit == 0) && !spared {
		return decision{bpf.VerdictDeny, byDefault, s.DefaultRule}
	}
	return decision{bpf.VerdictAllow, byDefault, 0}
}

// verdict is a decision about a range of ports, or about everything that bears a protocol without ports.
type verdict struct {
	from, to int
	decision
}

const lastPort = 1<<16 - 1

// otherProto stands for all protocols that no line names.
const otherProto = 255

// withPorts are TCP, UDP and SCTP.
var withPorts = []uint8{6, 17, 132}

// verdicts are the decisions about every port of a protocol.
func (p policyMaps) verdicts(subject bpf.SubjectKey, peer uint32, proto uint8) []verdict {
	if !slices.Contains(withPorts, proto) && !icmp.Is(proto) {
		return []verdict{{0, lastPort, p.decide(subject, peer, proto, noPort)}}
	}
	starts := []int{0} // of ranges within which no line makes a difference
	for _, l := range p.lines(subject) {
		if l.PortFrom != 0 || l.PortTo != 0 {
			starts = append(starts, int(l.PortFrom), int(l.PortTo)+1)
		}
	}
	slices.Sort(starts)
	var out []verdict
	for _, from := range slices.Compact(starts) {
		if from > lastPort {
			break
		}
		d := p.decide(subject, peer, proto, from)
		if n := len(out); n > 0 {
			out[n-1].to = from - 1
			if out[n-1].decision == d {
				out[n-1].to = lastPort
				continue
			}
		}
		out = append(out, verdict{from, lastPort, d})
	}
	return out
}

func (p policyMaps) lines(subject bpf.SubjectKey) []bpf.PolicyLine {
	var out []bpf.PolicyLine
	s := p.subjects[subject]
	for i := range s.Lines {
		out = append(out, p.groups[bpf.GroupKey{Group: s.Group, Chunk: i / bpf.GroupLines}].Line[i%bpf.GroupLines])
	}
	return out
}

// dumpPolicy shows what becomes of packets between the node's pods and everybody who has an address: whatever a line
// decides, or the absence of a row. What the subject's default decides is left out; see dumpSubjects.
func (n *node) dumpPolicy() []string {
	p := n.kernel.policy()
	subjects := map[bpf.SubjectKey]bool{}
	for key := range p.subjects {
		subjects[key] = true
	}
	for _, i := range n.kernel.ifaces.all() {
		subjects[bpf.SubjectKey{Identity: i.Identity, Dir: bpf.DirIngress}] = true
		subjects[bpf.SubjectKey{Identity: i.Identity, Dir: bpf.DirEgress}] = true
	}
	var out []string
	for key := range subjects {
		for peer := range n.peerIdentities(p) {
			arrow := "<-"
			if key.Dir == bpf.DirEgress {
				arrow = "->"
			}
			for _, text := range n.verdictsOf(p, key, peer) {
				out = append(out, fmt.Sprintf("%s %s %s %s %s", key.Dir, n.who(key.Identity), arrow, n.who(peer), text))
			}
		}
	}
	slices.Sort(out)
	return out
}

// peerIdentities are those that packets may bear. The node itself always reaches its pods, and what is unknown never
// does: policies have no say in either.
func (n *node) peerIdentities(p policyMaps) map[uint32]bool {
	out := map[uint32]bool{bpf.IdentityWorld: true}
	for id := range p.identities {
		out[id] = true
	}
	for _, r := range n.kernel.addresses.all() {
		out[r.Identity] = true
	}
	for _, r := range n.kernel.ranges.all() {
		out[r.Identity] = true
	}
	delete(out, bpf.IdentityUnknown)
	delete(out, bpf.IdentityHost)
	return out
}

// verdictsOf prints what a subject and a peer may do. What holds for every protocol is printed once.
func (n *node) verdictsOf(p policyMaps, subject bpf.SubjectKey, peer uint32) []string {
	protos := map[uint8]bool{}
	for _, l := range p.lines(subject) {
		if l.Proto != 0 {
			protos[l.Proto] = true
		} else if l.PortFrom != 0 || l.PortTo != 0 {
			for _, proto := range withPorts {
				protos[proto] = true
			}
		}
	}
	others := p.verdicts(subject, peer, otherProto)[0]
	var out []string
	if others.by != byDefault {
		out = append(out, "every port: "+n.decision(others.decision))
	}
	for proto := range maps.Keys(protos) {
		for _, v := range p.verdicts(subject, peer, proto) {
			if v.decision != others.decision {
				out = append(out, ports(proto, v)+": "+n.decision(v.decision))
			}
		}
	}
	return out
}

func ports(proto uint8, v verdict) string {
	name := table.ProtocolName(proto)
	switch {
	case v.from == 0 && v.to == lastPort:
		return "every " + name + " port"
	case v.from == v.to && icmp.Is(proto):
		return icmp.PortName(proto, uint16(v.from)) + "/" + name
	case v.from == v.to:
		return strconv.Itoa(v.from) + "/" + name
	}
	return fmt.Sprintf("%d-%d/%s", v.from, v.to, name)
}

func (n *node) decision(d decision) string {
	switch {
	case d.by == byAbsence:
		return d.verdict.String() + " for want of a row"
	case d.rule == 0:
		return d.verdict.String() + " by default"
	}
	return d.verdict.String() + " by " + n.rule(d.rule)
}
