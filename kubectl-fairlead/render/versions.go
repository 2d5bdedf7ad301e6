// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

// Versions writes versions in a format.
func Versions(w io.Writer, format string, v evaluate.Versions) error {
	if format != "text" {
		return encode(w, format, v)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s %s\n", "client", v.Client)
	for _, c := range v.Clusters {
		fmt.Fprintf(&b, "\n%s\n", c.Context)
		if c.Error != "" {
			fmt.Fprintf(&b, "  %s\n", c.Error)
			continue
		}
		fmt.Fprintf(&b, "  %-9s %s\n", "operator", or(c.Operator, "not reported yet (image "+or(c.OperatorImage, "unknown")+")"))
		for _, a := range c.Agents {
			fmt.Fprintf(&b, "  %-9s %s on %d nodes\n", "agents", or(a.Version, "not reported yet"), a.Nodes)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
