// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// FromDelta is a delta of the policy engine as a change of the maps' rows. held says how many chunks each group has whose
// rows are there, for those that go; it is kept up to date.
func FromDelta(d *policy.Delta, held map[uint32]uint32) Change {
	c := Change{
		Forget: d.Forget, Switch: d.Switch, Before: fromRows(d.Before, held),
		Subjects: map[bpf.SubjectKey]*bpf.Subject{}, After: fromRows(d.After, held),
	}
	for key, s := range d.Subjects {
		var row *bpf.Subject
		if s != nil {
			row = new(bpf.Subject)
			*row = SubjectRow(*s)
		}
		c.Subjects[bpf.SubjectKey{Identity: key.Identity, Dir: DirectionOf(key.Dir)}] = row
	}
	return c
}

func fromRows(r policy.Rows, held map[uint32]uint32) Rows {
	out := Rows{
		Sets: map[uint32]*uint64{}, Classes: map[uint32]*bpf.ClassSets{}, Members: map[uint32]*bpf.IdentityClass{},
		Blocks: r.CIDRs, Groups: map[bpf.GroupKey]*bpf.GroupChunk{},
	}
	for bit, name := range r.Sets {
		out.Sets[uint32(bit)] = nil
		if name != 0 {
			out.Sets[uint32(bit)] = &name
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
	for group, lines := range r.Groups {
		for chunk := range held[group] {
			out.Groups[bpf.GroupKey{Group: group, Chunk: chunk}] = nil
		}
		delete(held, group)
		for chunk, row := range chunks(lines) {
			out.Groups[bpf.GroupKey{Group: group, Chunk: uint32(chunk)}] = &row
			held[group] = uint32(chunk) + 1
		}
	}
	return out
}

// Held counts the chunks of the groups that the kernel holds.
func (m Memory) Held() map[uint32]uint32 {
	held := map[uint32]uint32{}
	for key := range m.Groups {
		held[key.Group] = max(held[key.Group], key.Chunk+1)
	}
	return held
}

func chunks(lines []policy.Line) []bpf.GroupChunk {
	out := make([]bpf.GroupChunk, (len(lines)+bpf.GroupLines-1)/bpf.GroupLines)
	for i, l := range lines {
		out[i/bpf.GroupLines].Line[i%bpf.GroupLines] = bpf.PolicyLine{
			Set: l.Set, PortFrom: l.From, PortTo: l.To, Proto: l.Proto, Verdict: bpf.Verdict(l.Verdict), RuleID: l.Rule,
		}
	}
	return out
}

// SubjectRow is a subject as its map holds it.
func SubjectRow(s policy.Subject) bpf.Subject {
	row := bpf.Subject{Group: s.Group, Lines: s.Lines, DefaultRule: s.DefaultRule}
	if s.Isolated {
		row.Flags |= bpf.SubjectIsolated
	}
	if s.Audit {
		row.Flags |= bpf.SubjectAudit
	}
	if s.Closed {
		row.Flags |= bpf.SubjectClosed
	}
	if s.Blocks {
		row.Flags |= bpf.SubjectBlocks
	}
	return row
}

// Closed is the row of a subject whose policy can't be written, as the engine names it.
func Closed(dir bpf.Direction) bpf.Subject {
	if dir == bpf.DirEgress {
		return SubjectRow(policy.ClosedSubject(policy.Egress))
	}
	return SubjectRow(policy.ClosedSubject(policy.Ingress))
}

// DirectionOf converts.
func DirectionOf(d policy.Direction) bpf.Direction {
	if d == policy.Egress {
		return bpf.DirEgress
	}
	return bpf.DirIngress
}

// Remembered is the memory as the engine wants it.
func (m Memory) Remembered() policy.Remembered {
	r := policy.Remembered{
		Sets: map[uint16]uint64{}, Classes: map[uint32]policy.Bitmap{}, Identities: map[uint32]uint32{},
		Groups: map[uint32][]policy.Line{}, Subjects: map[policy.SubjectKey]policy.Subject{}, CIDRs: m.Blocks,
	}
	for bit, name := range m.Sets {
		r.Sets[uint16(bit)] = name
	}
	for class, row := range m.Classes {
		r.Classes[class] = row.Sets
	}
	for id, row := range m.Members {
		r.Identities[id] = row.Class
	}
	lines := map[uint32]uint32{}
	for key, row := range m.Subjects {
		dir := policy.Ingress
		if key.Dir == bpf.DirEgress {
			dir = policy.Egress
		}
		r.Subjects[policy.SubjectKey{Identity: key.Identity, Dir: dir}] = policy.Subject{
			Isolated: row.Flags&bpf.SubjectIsolated != 0, Audit: row.Flags&bpf.SubjectAudit != 0,
			Blocks: row.Flags&bpf.SubjectBlocks != 0, Closed: row.Flags&bpf.SubjectClosed != 0,
			Group: row.Group, Lines: row.Lines, DefaultRule: row.DefaultRule,
		}
		lines[row.Group] = row.Lines
	}
	for group, n := range m.Held() {
		r.Groups[group] = m.lines(group, n, lines[group])
	}
	return r
}

// lines of a group: as many as a subject in force says, else all that are not zero.
func (m Memory) lines(group, chunks, n uint32) []policy.Line {
	var out []policy.Line
	for chunk := range chunks {
		for i, l := range m.Groups[bpf.GroupKey{Group: group, Chunk: chunk}].Line {
			at := chunk*bpf.GroupLines + uint32(i)
			if n > 0 && at >= n || n == 0 && l == (bpf.PolicyLine{}) {
				return out
			}
			out = append(out, policy.Line{
				Set: l.Set, From: l.PortFrom, To: l.PortTo, Proto: l.Proto, Verdict: policy.Verdict(l.Verdict), Rule: l.RuleID,
			})
		}
	}
	return out
}
