// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
)

// Explain writes what policies make of a connection.
func Explain(w io.Writer, format string, colour bool, r explain.Report) error {
	if format != "text" {
		return encode(w, format, r)
	}
	p := palette(colour)
	var b strings.Builder
	fmt.Fprintf(&b, "%s → %s: %s\n", r.From, r.To, explainWord(p, r.Verdict))
	for _, c := range r.Connections {
		fmt.Fprintf(&b, "\n%s → %s: %s\n", p.bold(c.From.String()), p.bold(destination(c)), explainWord(p, c.Verdict))
		if len(c.Alike) > 0 {
			fmt.Fprintf(&b, "  and so for %s\n", strings.Join(c.Alike, ", "))
		}
		side(&b, p, "egress ", c.Egress)
		side(&b, p, "ingress", c.Ingress)
	}
	if len(r.Missing) > 0 {
		b.WriteString("\nCould not be read:\n")
		for _, m := range r.Missing {
			fmt.Fprintf(&b, "  %s\n", m)
		}
	}
	if len(r.Notes) > 0 {
		b.WriteString("\nNot judged here:\n")
		for _, n := range r.Notes {
			fmt.Fprintf(&b, "  %s\n", n)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func destination(c explain.Connection) string {
	name := c.To.String()
	if c.Port == 0 {
		return strings.TrimRight(name+" "+c.Protocol+" "+c.ICMPType, " ")
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	return fmt.Sprintf("%s:%d/%s", name, c.Port, c.Protocol)
}

func side(b *strings.Builder, p paint, name string, s explain.Side) {
	verdict := explainWord(p, s.Verdict)
	if s.Exempt == explain.ExemptNotAPod {
		verdict = p.dim("not judged")
	}
	fmt.Fprintf(b, "  %s  %s  %s\n", name, verdict, s.Why)
	const indent = "           "
	if s.Exempt != explain.ExemptNone && s.Exempt != explain.ExemptNotAPod {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("exempt:"), s.Exempt)
	}
	if s.Rule != nil {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("by:"), ruleLine(*s.Rule))
	}
	if s.Passed != nil {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("passed to the next tier by:"), ruleLine(*s.Passed))
	}
	for _, r := range s.Also {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("also:"), ruleLine(r))
	}
	if s.PeerSeenAs != "" && !strings.HasPrefix(s.PeerSeenAs, "pod ") {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("other side counts as:"), s.PeerSeenAs)
	}
	if e := s.Enforced; e != nil {
		fmt.Fprintf(b, "%s%s node %s, %s", indent, p.dim("enforced on:"), e.Node, count(e.Policies, "policy", "policies"))
		for i, rev := range e.Revisions {
			fmt.Fprintf(b, "%s%s", map[bool]string{true: " of ", false: ", "}[i == 0], evaluate.ShortRevision(rev))
		}
		fmt.Fprintf(b, " (reported %s)\n", e.Reported)
	}
}

// ruleLine names a rule: policy, place, mode, tier, file and commit.
func ruleLine(r world.Rule) string {
	if r.Policy == "" {
		return r.Rule + " (built in)"
	}
	s := r.Policy + ", " + r.Rule + ", " + r.Mode
	if r.AuditedBy != "" {
		s += " by " + r.AuditedBy
	}
	if r.Tier != "" {
		s += ", " + r.Tier + " tier"
	}
	if r.File != "" {
		s += ", " + r.File
		if r.Line > 0 {
			s += fmt.Sprintf(":%d", r.Line)
		}
	}
	switch {
	case r.Revision != "":
		s += " @ " + evaluate.ShortRevision(r.Revision)
	case r.File == "":
		s += ", applied by hand"
	}
	return s
}

func explainWord(p paint, v explain.Verdict) string {
	word := strings.ToUpper(string(v))
	switch v {
	case explain.Allowed:
		return p.good(word)
	case explain.Audited:
		return p.state(evaluate.Warning, word+" (allowed)")
	case explain.Denied, explain.Partly, explain.Unknown:
	}
	return p.bad(word)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
