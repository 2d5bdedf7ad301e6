// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package render turns reports and verdicts into what people and programs read.
package render

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

// Status writes a report in a format.
func Status(w io.Writer, format string, colour bool, r evaluate.Report) error {
	if format != "text" {
		return encode(w, format, r)
	}
	_, err := io.WriteString(w, statusText(palette(colour), r))
	return err
}

// encode writes v for programs.
func encode(w io.Writer, format string, v any) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	out, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(out)
	return err
}

// statusText gives what is healthy one line, what is not as many as it takes, and says where to begin.
func statusText(p paint, r evaluate.Report) string {
	var b strings.Builder
	for i, c := range r.Clusters {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s  %s\n", p.bold(title(c)), p.state(c.State, overall(c)))
		for _, k := range c.Checks {
			check(&b, p, k)
		}
	}
	if c, first := r.FirstFailing(); first != nil {
		where := ""
		if len(r.Clusters) > 1 {
			where = " of " + c.Context
		}
		fmt.Fprintf(&b, "\nBegin with %s%s: %s\n", first.Section, where, first.Hint)
	}
	return b.String()
}

func title(c evaluate.ClusterReport) string {
	if c.Cluster == "" {
		return c.Context
	}
	t := c.Cluster + " in mesh " + c.Mesh
	if c.Context != c.Cluster {
		t += " (context " + c.Context + ")"
	}
	return t
}

func overall(c evaluate.ClusterReport) string {
	switch {
	case c.Unreachable:
		return "unreachable"
	case c.State == evaluate.Failing:
		return "unhealthy"
	case c.State == evaluate.Warning:
		return "healthy, with warnings"
	}
	return "healthy"
}

// width of the words for a state and for a section, so that summaries stand below each other.
const (
	stateWidth   = 4
	sectionWidth = 10
	indent       = "  " + "    " + "  " + "          " + "  "
)

func check(b *strings.Builder, p paint, k evaluate.Check) {
	word := map[evaluate.State]string{evaluate.OK: "ok", evaluate.Warning: "warn", evaluate.Failing: "FAIL"}[k.State]
	fmt.Fprintf(b, "  %s  %-*s  %s\n", p.state(k.State, fmt.Sprintf("%-*s", stateWidth, word)), sectionWidth, k.Section, k.Summary)
	if k.State == evaluate.OK {
		return
	}
	for _, d := range k.Details {
		for line := range strings.Lines(d) {
			fmt.Fprintf(b, "%s%s\n", indent, strings.TrimRight(line, "\n"))
		}
	}
	if k.Hint != "" {
		fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("next:"), k.Hint)
	}
	fmt.Fprintf(b, "%s%s %s\n", indent, p.dim("more:"), k.HintURL)
}
