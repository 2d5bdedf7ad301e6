// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := result{cluster: "east"}
	err := r.parse([]byte(`[{"SpecReports":[
		{"LeafNodeType":"BeforeSuite","State":"passed"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"allows","State":"passed"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"denies","State":"timedout"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"else","State":"skipped"}
	]}]`))
	if err != nil || len(r.passed) != 1 || len(r.failed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	page := render([]result{r})
	for _, want := range []string{"| east | 1 | 1 |", "Failed in east: Netpol denies", "- Netpol allows\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if err := (&result{}).parse([]byte(`[{"SpecReports":[{"LeafNodeType":"It","State":"skipped"}]}]`)); err == nil {
		t.Error("a suite of which nothing ran passes")
	}
}
