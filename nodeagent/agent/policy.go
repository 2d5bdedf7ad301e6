// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	applypolicy "github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
)

// changeOf puts what the policy engine changes into the kernel's row types. lines has how many lines groups have and is
// kept up to date: a group goes chunk by chunk.
func changeOf(d *policy.Delta, lines map[uint32]int) applypolicy.Change {
	c := applypolicy.Change{
		Forget: d.Forget, Switch: d.Switch,
		Before: rowsOf(&d.Before, lines), Subjects: map[bpf.SubjectKey]*bpf.Subject{}, After: rowsOf(&d.After, lines),
	}
	for key, s := range d.Subjects {
		to := bpf.SubjectKey{Identity: key.Identity, Dir: direction(key.Dir)}
		if s == nil {
			c.Subjects[to] = nil
			continue
		}
		row := subject(*s)
		c.Subjects[to] = &row
	}
	return c
}

func rowsOf(r *policy.Rows, lines map[uint32]int) applypolicy.Rows {
	out := applypolicy.Rows{
		Sets: map[uint32]*uint64{}, Classes: map[uint32]*bpf.ClassSets{}, Members: map[uint32]*bpf.IdentityClass{},
		CIDRs: r.CIDRs, Groups: map[bpf.GroupKey]*bpf.GroupChunk{},
	}
	for set, hash := range r.Sets {
		out.Sets[uint32(set)] = nil
		if hash != 0 {
			out.Sets[uint32(set)] = &hash
		}
	}
	for class, bits := range r.Classes {
		out.Classes[class] = nil
		if bits != nil {
			out.Classes[class] = &bpf.ClassSets{Sets: *bits}
		}
	}
	for id, class := range r.Identities {
		out.Members[id] = nil
		if class != nil {
			out.Members[id] = &bpf.IdentityClass{Class: *class}
		}
	}
	for group, list := range r.Groups {
		for chunk := range chunks(lines[group]) {
			out.Groups[bpf.GroupKey{Group: group, Chunk: chunk}] = nil
		}
		for chunk := range chunks(len(list)) {
			part := list[chunk*policy.LinesPerChunk:]
			out.Groups[bpf.GroupKey{Group: group, Chunk: chunk}] = chunkOf(part[:min(len(part), policy.LinesPerChunk)])
		}
		if lines[group] = len(list); list == nil {
			delete(lines, group)
		}
	}
	return out
}

func chunks(lines int) uint32 { return uint32(lines+policy.LinesPerChunk-1) / policy.LinesPerChunk }

func chunkOf(lines []policy.Line) *bpf.GroupChunk {
	c := &bpf.GroupChunk{}
	for i, l := range lines {
		c.Line[i] = bpf.PolicyLine{
			Set: l.Set, PortFrom: l.From, PortTo: l.To, Proto: l.Proto, Verdict: bpf.Verdict(l.Verdict), RuleID: l.Rule,
		}
	}
	return c
}

func direction(d policy.Direction) bpf.Direction {
	if d == policy.Egress {
		return bpf.DirEgress
	}
	return bpf.DirIngress
}

func subject(s policy.Subject) bpf.Subject {
	out := bpf.Subject{Group: s.Group, Lines: s.Lines, DefaultRule: s.DefaultRule}
	if s.Isolated {
		out.Flags |= bpf.SubjectIsolated
	}
	if s.Audit {
		out.Flags |= bpf.SubjectAudit
	}
	return out
}

// closedSubject is the row of a subject that depends on what the kernel refuses.
func closedSubject(dir bpf.Direction) bpf.Subject {
	if dir == bpf.DirEgress {
		return subject(policy.ClosedSubject(policy.Egress))
	}
	return subject(policy.ClosedSubject(policy.Ingress))
}

// rememberedOf is what the engine starts from. lines is filled for changeOf.
func rememberedOf(m applypolicy.Memory, cidrs map[netip.Prefix]uint32, lines map[uint32]int) policy.Remembered {
	r := policy.Remembered{
		Sets: map[uint16]uint64{}, Classes: map[uint32]policy.Bitmap{}, Identities: map[uint32]uint32{},
		Groups: map[uint32][]policy.Line{}, Subjects: map[policy.SubjectKey]policy.Subject{}, CIDRs: cidrs,
	}
	for bit, hash := range m.Sets {
		if hash != 0 && bit < policy.SetCount {
			r.Sets[uint16(bit)] = hash
		}
	}
	for class, row := range m.Classes {
		if row != (bpf.ClassSets{}) {
			r.Classes[class] = row.Sets
		}
	}
	for id, row := range m.Members {
		r.Identities[id] = row.Class
	}
	for key, s := range m.Subjects {
		dir := policy.Ingress
		if key.Dir == bpf.DirEgress {
			dir = policy.Egress
		}
		r.Subjects[policy.SubjectKey{Identity: key.Identity, Dir: dir}] = policy.Subject{
			Isolated: s.Flags&bpf.SubjectIsolated != 0, Audit: s.Flags&bpf.SubjectAudit != 0,
			Group: s.Group, Lines: s.Lines, DefaultRule: s.DefaultRule,
		}
	}
	for key := range m.Groups {
		if key.Chunk == 0 {
			r.Groups[key.Group] = linesOf(m.Groups, key.Group)
		}
		lines[key.Group] = max(lines[key.Group], int(key.Chunk+1)*policy.LinesPerChunk)
	}
	return r
}

// linesOf reads a group back from its chunks, up to the first line that is none.
func linesOf(groups map[bpf.GroupKey]bpf.GroupChunk, group uint32) []policy.Line {
	var out []policy.Line
	for chunk := uint32(0); ; chunk++ {
		row, ok := groups[bpf.GroupKey{Group: group, Chunk: chunk}]
		if !ok {
			return out
		}
		for _, l := range row.Line {
			if l.Verdict == bpf.VerdictNone {
				return out
			}
			out = append(out, policy.Line{
				Set: l.Set, Proto: l.Proto, From: l.PortFrom, To: l.PortTo, Verdict: policy.Verdict(l.Verdict), Rule: l.RuleID,
			})
		}
	}
}
