// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/lint"
)

// Lint writes findings, two lines each.
func Lint(w io.Writer, format string, colour bool, r lint.Report) error {
	if format != "text" {
		return encode(w, format, r)
	}
	p := palette(colour)
	var b strings.Builder
	counts := map[lint.Severity]int{}
	for _, f := range r.Findings {
		counts[f.Severity]++
		where := f.Policy
		if f.Rule != "" {
			where += ", " + f.Rule
		}
		if len(f.Clusters) > 0 {
			where += " (" + strings.Join(f.Clusters, ", ") + ")"
		}
		if f.File != "" {
			at := f.File
			if f.Line > 0 {
				at += fmt.Sprintf(":%d", f.Line)
			}
			if f.Revision != "" {
				at += " @ " + evaluate.ShortRevision(f.Revision)
			}
			where = at + ": " + where
		}
		fmt.Fprintf(&b, "%s  %s  %s\n         %s\n         %s %s\n", severity(p, f.Severity), f.Code, where, f.Message, p.dim("next:"), f.Next)
	}
	fmt.Fprintf(&b, "%s: %s, %s, %d for information\n", count(r.Policies, "policy", "policies"),
		count(counts[lint.Error], "error", "errors"), count(counts[lint.Warning], "warning", "warnings"), counts[lint.Information])
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "not looked for: %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func severity(p paint, s lint.Severity) string {
	word := fmt.Sprintf("%-7s", s)
	switch s {
	case lint.Error:
		return p.bad(word)
	case lint.Warning:
		return p.state(evaluate.Warning, word)
	case lint.Information:
	}
	return p.dim(word)
}
