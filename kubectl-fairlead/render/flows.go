// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/flows"
	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

// Flows writes verdicts, a line each. With clusters, the text says which cluster's node it was.
func Flows(w io.Writer, format string, colour, clusters bool, all []flows.Flow) error {
	if format == "json" {
		e := json.NewEncoder(w)
		for _, f := range all {
			if err := e.Encode(f); err != nil {
				return fmt.Errorf("encode a verdict: %w", err)
			}
		}
		return nil
	}
	var b strings.Builder
	for _, f := range all {
		b.WriteString(flowLine(palette(colour), clusters, f))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func flowLine(p paint, clusters bool, f flows.Flow) string {
	where := f.Node
	if c := cluster(f); clusters && c != "" {
		where = c + "/" + where
	}
	// The policy's own words hold the whole commit; here it is cut to what people compare.
	if f.Policy != nil {
		short := *f.Policy
		short.Revision = evaluate.ShortRevision(short.Revision)
		f.Policy = &short
	}
	reason := f.Reason
	f.Reason = "" // said below for every verdict
	said := strings.TrimRight(strings.TrimPrefix(f.Flow.String(), string(f.Verdict)), " ")
	why := fmt.Sprintf("[%s, identities %d → %d", reason, f.Source.Identity, f.Destination.Identity)
	if f.Packets > 1 {
		why += fmt.Sprintf(", %d packets", f.Packets)
	}
	return fmt.Sprintf("%s  %s  %s%s  %s\n", f.Time.Local().Format("15:04:05.000"), where, verdictWord(p, f.Verdict), said, p.dim(why+"]"))
}

// cluster by the name it has in the mesh, or else in the kubeconfig.
func cluster(f flows.Flow) string {
	if f.Cluster != "" {
		return f.Cluster
	}
	return f.Context
}

func verdictWord(p paint, v flow.Verdict) string {
	word := fmt.Sprintf("%-7s", v)
	switch v {
	case flow.Denied, flow.Dropped:
		return p.bad(word)
	case flow.Audited:
		return p.state(evaluate.Warning, word)
	case flow.Allowed:
	}
	return p.good(word)
}
