// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Pages refer to files and to headings; both move.
func TestLinksLeadSomewhere(t *testing.T) {
	dir := root(t)
	pages := []string{"README.md", "CONTRIBUTING.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "config/samples/*.md", "hack/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(dir, f)
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, rel)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, heading, _ := strings.Cut(m[1], "#")
			target := filepath.Join(dir, filepath.Dir(page), file)
			if file == "" {
				target = filepath.Join(dir, page)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
				continue
			}
			if heading != "" && !slices.Contains(anchors(t, target), heading) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
}

// anchors of a page's headings, as code hosts make them.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		out = append(out, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', r >= 'a' && r <= 'z', r >= '0' && r <= '9':
				return r
			}
			return -1
		}, heading))
	}
	return out
}
