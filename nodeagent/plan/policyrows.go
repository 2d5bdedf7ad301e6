// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// policyRows is what one step of the policy's plan writes. CIDRs go through the network's plan, which knows the ranges of
// the mesh.
type policyRows struct {
	rows     *policy.Rows
	gone     map[uint32]uint32 // lines of the groups that go
	subjects map[policy.SubjectKey]*policy.Subject
	rules    map[uint32]*policy.Rule
}

func (r policyRows) size() int {
	n := len(r.subjects) + len(r.rules)
	if r.rows != nil {
		n += len(r.rows.Sets) + len(r.rows.Classes) + len(r.rows.Identities) + len(r.rows.CIDRs) + len(r.rows.Groups)
	}
	return n
}

// write emits the rows.
func (r policyRows) write(txn *table.Txn, w *table.PlanWriters) {
	if r.rows != nil {
		writeRows(txn, w, r.rows, r.gone)
	}
	for key, s := range r.subjects {
		to := bpf.SubjectKey{Identity: key.Identity, Dir: direction(key.Dir)}
		if s == nil {
			w.Subjects.Delete(txn, to)
		} else {
			w.Subjects.Put(txn, to, subject(*s))
		}
	}
	for id, rule := range r.rules {
		if rule == nil {
			w.Rules.Delete(txn, id)
		} else {
			w.Rules.Put(txn, id, describe(rule))
		}
	}
}

func writeRows(txn *table.Txn, w *table.PlanWriters, r *policy.Rows, gone map[uint32]uint32) {
	for set, hash := range r.Sets {
		if hash == 0 {
			w.Sets.Delete(txn, uint32(set))
		} else {
			w.Sets.Put(txn, uint32(set), hash)
		}
	}
	for class, bits := range r.Classes {
		if bits == nil {
			w.Classes.Delete(txn, class)
		} else {
			w.Classes.Put(txn, class, bpf.ClassSets{Sets: *bits})
		}
	}
	for id, class := range r.Identities {
		if class == nil {
			w.Members.Delete(txn, id)
		} else {
			w.Members.Put(txn, id, bpf.IdentityClass{Class: *class})
		}
	}
	for group, list := range r.Groups {
		if list == nil {
			for chunk := range chunks(gone[group]) {
				w.Groups.Delete(txn, bpf.GroupKey{Group: group, Chunk: chunk})
			}
			continue
		}
		for chunk := range chunks(uint32(len(list))) {
			from := chunk * policy.LinesPerChunk
			part := list[from:min(from+policy.LinesPerChunk, uint32(len(list)))]
			w.Groups.Put(txn, bpf.GroupKey{Group: group, Chunk: chunk}, chunkOf(part))
		}
	}
}

func chunks(lines uint32) uint32 { return (lines + policy.LinesPerChunk - 1) / policy.LinesPerChunk }

func chunkOf(lines []policy.Line) (c bpf.GroupChunk) {
	for i, l := range lines {
		c.Line[i] = bpf.PolicyLine{
			Set: l.Set, PortFrom: l.From, PortTo: l.To, Proto: l.Proto, Verdict: bpf.Verdict(l.Verdict), RuleID: l.Rule,
		}
	}
	return c
}

// linesOf reads a group back from its chunks, in order.
func linesOf(chunks []bpf.GroupChunk) []policy.Line {
	var out []policy.Line
	for _, c := range chunks {
		for _, l := range c.Line {
			if l.Verdict == bpf.VerdictNone {
				return out
			}
			out = append(out, policy.Line{
				Set: l.Set, Proto: l.Proto, From: l.PortFrom, To: l.PortTo, Verdict: policy.Verdict(l.Verdict), Rule: l.RuleID,
			})
		}
	}
	return out
}

func direction(d policy.Direction) bpf.Direction {
	if d == policy.Egress {
		return bpf.DirEgress
	}
	return bpf.DirIngress
}

func subject(s policy.Subject) bpf.Subject {
	out := bpf.Subject{DefaultRule: s.DefaultRule, Group: s.Group, Lines: s.Lines}
	if s.Isolated {
		out.Flags |= bpf.SubjectIsolated
	}
	if s.Audit {
		out.Flags |= bpf.SubjectAudit
	}
	return out
}

func describe(r *policy.Rule) table.Rule {
	kind, _, _ := strings.Cut(r.PolicyKey, "/")
	return table.Rule{
		Policy: r.PolicyKey, Kind: kind, Namespace: r.Namespace, Name: r.Name, Direction: direction(r.Direction),
		Description: r.Text,
		Source:      r.Provenance.Source, URL: r.Provenance.URL, Revision: r.Provenance.Revision, Path: r.Provenance.Path,
	}
}
