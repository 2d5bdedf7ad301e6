// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Whoever sees a reason looks it up; so each has a row, in the half of the page where it belongs.
func TestEveryReasonIsExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs/reference/drop-reasons.md"))
	if err != nil {
		t.Fatal(err)
	}
	dropped, passed, ok := strings.Cut(string(page), "## Went on")
	if !ok {
		t.Fatal("docs/reference/drop-reasons.md has no part \"Went on\"")
	}
	explained := 0
	for r := bpf.ReasonNone + 1; r < bpf.ReasonCount; r++ {
		name := r.String()
		if r == bpf.ReasonFirstDrop || strings.Trim(name, "0123456789") == "" {
			continue // a mark in the numbering, or a number without a name yet
		}
		half := passed
		if r.IsDrop() {
			half = dropped
		}
		if !strings.Contains(half, "\n| `"+name+"` |") {
			t.Errorf("docs/reference/drop-reasons.md does not explain %s where it belongs (a drop: %t)", name, r.IsDrop())
		}
		explained++
	}
	if explained == 0 {
		t.Fatal("no reasons found")
	}
}
