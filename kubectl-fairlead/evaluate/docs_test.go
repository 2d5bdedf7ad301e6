// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Hint URLs lead to headings; so every id in the code has one, and no heading explains a check that is gone.
func TestEveryCheckIsExplained(t *testing.T) {
	docs, err := os.ReadFile("../../docs/reference/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (fl-[a-z-]+)$`).FindAllStringSubmatch(string(docs), -1) {
		headings[m[1]] = true
	}
	ids := map[string]bool{}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		source, err := os.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\.check\("(fl-[a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
			ids[m[1]] = true
		}
	}
	if len(ids) == 0 {
		t.Fatal("no ids found in the code")
	}
	for id := range ids {
		if !headings[id] {
			t.Errorf("docs/reference/checks.md does not explain %s", id)
		}
	}
	for id := range headings {
		if !ids[id] {
			t.Errorf("docs/reference/checks.md explains %s, which no check has", id)
		}
	}
}
