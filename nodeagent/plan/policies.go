// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// policies is what the policies come to, as rows.
type policies struct {
	entries  map[bpf.PolicyKey]bpf.PolicyEntry
	subjects map[bpf.SubjectKey]bpf.Subject
	rules    map[uint32]table.Rule
	cidrs    map[netip.Prefix]uint32
	problems []policy.Problem
}

func planPolicies(in policy.Input) policies {
	r := policy.Compile(in)
	p := policies{
		entries:  make(map[bpf.PolicyKey]bpf.PolicyEntry, len(r.Entries)),
		subjects: make(map[bpf.SubjectKey]bpf.Subject, len(r.Subjects)),
		rules:    make(map[uint32]table.Rule, len(r.Rules)),
		cidrs:    r.CIDRs,
		problems: r.Problems,
	}
	for k, e := range r.Entries {
		key := bpf.PolicyKey{
			Subject: k.Subject, Peer: k.Peer, Port: k.Port, PortPrefix: k.PortPrefix, Proto: k.Proto, Dir: direction(k.Dir),
		}
		p.entries[key] = bpf.PolicyEntry{Precedence: e.Precedence, RuleID: e.Rule, Verdict: bpf.Verdict(e.Verdict)}
	}
	for k, s := range r.Subjects {
		p.subjects[bpf.SubjectKey{Identity: k.Identity, Dir: direction(k.Dir)}] = subject(s)
	}
	for id, rule := range r.Rules {
		p.rules[id] = describe(rule)
	}
	return p
}

func direction(d policy.Direction) bpf.Direction {
	if d == policy.Egress {
		return bpf.DirEgress
	}
	return bpf.DirIngress
}

func subject(s policy.Subject) bpf.Subject {
	out := bpf.Subject{DefaultRule: s.DefaultRule, Prefixes: s.Prefixes}
	if s.Isolated {
		out.Flags |= bpf.SubjectIsolated
	}
	if s.Audit {
		out.Flags |= bpf.SubjectAudit
	}
	return out
}

func describe(r policy.Rule) table.Rule {
	kind, _, _ := strings.Cut(r.PolicyKey, "/")
	return table.Rule{
		Policy: r.PolicyKey, Kind: kind, Namespace: r.Namespace, Name: r.Name, Direction: direction(r.Direction),
		Description: r.Text,
		Source:      r.Provenance.GetSource(), URL: r.Provenance.GetUrl(),
		Revision: r.Provenance.GetRevision(), Path: r.Provenance.GetPath(),
	}
}
