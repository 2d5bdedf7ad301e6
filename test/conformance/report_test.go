// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := result{cluster: "east"}
	err := r.parseGinkgo([]byte(`[{"SpecReports":[
		{"LeafNodeType":"BeforeSuite","State":"passed"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"allows","State":"passed"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"denies","State":"timedout"},
		{"ContainerHierarchyTexts":["Netpol"],"LeafNodeType":"It","LeafNodeText":"else","State":"skipped"}
	]}]`))
	if err != nil || len(r.passed) != 1 || len(r.failed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	page := render(kubernetes, []result{r})
	for _, want := range []string{"| east | 1 | 1 |", "Failed in east: Netpol denies", "- Netpol allows\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if err := (&result{}).parseGinkgo([]byte(`[{"SpecReports":[{"LeafNodeType":"It","State":"skipped"}]}]`)); err == nil {
		t.Error("a suite of which nothing ran passes")
	}
}

func TestGoReport(t *testing.T) {
	r := result{cluster: "east"}
	err := r.parseGoTest(strings.NewReader(`{"Action":"start"}
		{"Action":"run","Test":"TestConformance"}
		{"Action":"run","Test":"TestConformance/A"}
		{"Action":"run","Test":"TestConformance/A/denies"}
		{"Action":"pass","Test":"TestConformance/A/denies"}
		{"Action":"pass","Test":"TestConformance/A"}
		{"Action":"run","Test":"TestConformance/B"}
		{"Action":"skip","Test":"TestConformance/B"}
		{"Action":"run","Test":"TestConformance/C"}
		{"Action":"run","Test":"TestConformance/C/hangs"}
		{"Action":"fail","Test":"TestConformance"}
		{"Action":"fail"}`))
	if err != nil || !slices.Equal(r.passed, []string{"A/denies"}) || !slices.Equal(r.failed, []string{"C/hangs"}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCyclonusReport(t *testing.T) {
	r := result{cluster: "west"}
	err := r.parseCyclonus([]byte(`[
		{"Name":"001 a","Steps":2,"Looks":3},
		{"Name":"002 b","Steps":1,"Looks":4,"Wrong":[{"Step":1,"From":"x/a","To":"y/b","Port":"TCP/80","Want":"blocked","Got":"allowed"}]},
		{"Name":"003 c","Error":"no pod"},
		{"Name":"004 d"}]`))
	if err != nil || !slices.Equal(r.passed, []string{"001 a"}) || !slices.Equal(r.failed, []string{"002 b", "003 c", "004 d"}) {
		t.Fatalf("%+v, %v", r, err)
	}
	page := render(cyclonus, []result{r})
	for _, want := range []string{
		"In west: 3 steps, looked at 7 times.\n", "Failed in west: 003 c\n(no pod)\n",
		"Failed in west: 002 b\n(step 1: x/a to y/b TCP/80 is allowed, should be blocked)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if err := (&result{}).parseCyclonus([]byte(`[]`)); err == nil {
		t.Error("a suite of which nothing ran passes")
	}
}
