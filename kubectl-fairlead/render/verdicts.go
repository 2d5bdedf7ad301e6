// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/flow"
)

// Verdicts writes verdicts, a line each. With clusters, the text says whose node it was.
func Verdicts(w io.Writer, format string, colour, clusters bool, verdicts []flow.Verdict) error {
	if format == "json" {
		e := json.NewEncoder(w)
		for _, v := range verdicts {
			if err := e.Encode(v); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	for _, v := range verdicts {
		b.WriteString(verdictLine(palette(colour), clusters, v))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func verdictLine(p paint, clusters bool, v flow.Verdict) string {
	where := v.Node
	if clusters {
		where = v.Context + "/" + v.Node
	}
	line := fmt.Sprintf("%s  %s  %s  %s → %s  %s  %s", v.Time.Local().Format("15:04:05.000"), where,
		verdictWord(p, v.Verdict), party(v.Source), party(v.Dest), v.Protocol, v.Reason)
	if v.Packets > 1 {
		line += fmt.Sprintf("  ×%d", v.Packets)
	}
	if v.Policy != nil {
		line += "  " + p.dim(policyWords(*v.Policy))
	}
	return line + "\n"
}

func verdictWord(p paint, verdict string) string {
	word := fmt.Sprintf("%-7s", strings.ToUpper(verdict))
	switch verdict {
	case "denied":
		return p.bad(word)
	case "audited":
		return p.state(evaluate.Warning, word)
	}
	return p.good(word)
}

// party names the pod if it is known, else what is known; always with address and identity, which is what was decided on.
func party(q flow.Party) string {
	name := q.Pod
	if q.Namespace != "" {
		name = q.Namespace + "/" + name
	}
	if q.Cluster != "" {
		name += "@" + q.Cluster
	}
	at := q.Address
	if q.Port != 0 {
		at = fmt.Sprintf("%s:%d", at, q.Port)
		if strings.Contains(q.Address, ":") {
			at = fmt.Sprintf("[%s]:%d", q.Address, q.Port)
		}
	}
	if name == "" {
		return fmt.Sprintf("%s (identity %d)", at, q.Identity)
	}
	return fmt.Sprintf("%s (%s, identity %d)", name, at, q.Identity)
}

func policyWords(q flow.Policy) string {
	name := q.Name
	if q.Namespace != "" {
		name = q.Namespace + "/" + name
	}
	words := "by " + strings.TrimSpace(q.Kind+" "+name)
	if q.Path != "" {
		words += ", " + q.Path
	}
	if q.Revision != "" {
		words += " at " + evaluate.ShortRevision(q.Revision)
	}
	return words
}
