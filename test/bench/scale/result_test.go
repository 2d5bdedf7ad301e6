// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// Runs of parts make one result; a run of another commit begins a new one.
func TestResultsOfPartsComeTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	save := func(r Result) *Result {
		t.Helper()
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
		got, err := loadResult(path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	save(Result{Commit: "a", Sizes: []Size{{Clusters: 10, Bootstrap: 1}, {Clusters: 1}}})
	save(Result{Commit: "a", Services: &Services{BackendCount: 7}})
	got := save(Result{Commit: "a", Sizes: []Size{{Clusters: 10, Bootstrap: 2}}})
	if len(got.Sizes) != 2 || got.Sizes[1].Bootstrap != 2 || got.Services == nil {
		t.Errorf("after three runs: %+v", got)
	}
	if got = save(Result{Commit: "b", Sizes: []Size{{Clusters: 10}}}); len(got.Sizes) != 1 || got.Services != nil {
		t.Errorf("after a run of another commit: %+v", got)
	}
}

// Curves are XML, whatever their figures are, and show each series.
func TestCurves(t *testing.T) {
	results := []*Result{
		{Label: "before & <old>", Sizes: []Size{{Endpoints: 2000, Bootstrap: 0.5}, {Endpoints: 251000, Bootstrap: 12000}}},
		{Label: "after", Sizes: []Size{{Endpoints: 2000, Bootstrap: 3}}},
	}
	drawn := curves(results)
	if len(drawn) != 1 {
		t.Fatalf("%d curves of one figure", len(drawn))
	}
	svg := string(drawn[0].svg())
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	if got := strings.Count(svg, "<circle"); got != 3 {
		t.Errorf("%d points are drawn, want 3", got)
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("a coordinate is no number:\n%s", svg)
	}
}
