// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// result is what came out on one cluster.
type result struct {
	cluster        string
	passed, failed []string
	why            map[string]string // of what failed, if the suite says it in a line
	note           string            // more about all of it
}

// ginkgoSuite is as much of Ginkgo's JSON report as is read here.
type ginkgoSuite struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
	}
}

func readGinkgo(cluster, path string) (result, error) {
	r := result{cluster: cluster}
	data, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	return r, r.parseGinkgo(data)
}

// readGoTest reads the events of a Go test.
func readGoTest(cluster, path string) (result, error) {
	r := result{cluster: cluster}
	f, err := os.Open(path)
	if err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	defer f.Close()
	return r, r.parseGoTest(f)
}

// parseGoTest counts the tests that have none within: what a test says whose parts are counted counts for nothing.
func (r *result) parseGoTest(events io.Reader) error {
	states := map[string]string{}
	parents := map[string]bool{}
	d := json.NewDecoder(events)
	for {
		var e struct{ Action, Test string }
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the suite's report: %w", err)
		}
		switch e.Action {
		case "run":
			states[e.Test] = "fail" // if it never ends
			for i, c := range e.Test {
				if c == '/' {
					parents[e.Test[:i]] = true
				}
			}
		case "pass", "fail", "skip":
			states[e.Test] = e.Action
		}
	}
	for name, state := range states {
		_, short, _ := strings.Cut(name, "/")
		switch {
		case name == "" || parents[name] || state == "skip":
		case state == "pass":
			r.passed = append(r.passed, short)
		default:
			r.failed = append(r.failed, short)
		}
	}
	return r.finish()
}

func (r *result) parseGinkgo(data []byte) error {
	var suites []ginkgoSuite
	if err := json.Unmarshal(data, &suites); err != nil {
		return fmt.Errorf("read the suite's report: %w", err)
	}
	for _, s := range suites {
		for _, spec := range s.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			switch {
			case spec.LeafNodeType != "It" || spec.State == "skipped" || spec.State == "pending":
			case spec.State == "passed":
				r.passed = append(r.passed, name)
			default: // failed, panicked, interrupted, timed out
				r.failed = append(r.failed, name)
			}
		}
	}
	return r.finish()
}

// readCyclonus reads what the program in cyclonus/ writes.
func readCyclonus(cluster, path string) (result, error) {
	r := result{cluster: cluster}
	data, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	return r, r.parseCyclonus(data)
}

// shown is how many wrong connections of a case a report has.
const shown = 12

func (r *result) parseCyclonus(data []byte) error {
	var cases []struct {
		Name, Error  string
		Steps, Looks int
		Wrong        []struct {
			Step                      int
			From, To, Port, Want, Got string
		}
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		return fmt.Errorf("read the suite's report: %w", err)
	}
	r.why = map[string]string{}
	steps, looks := 0, 0
	for _, c := range cases {
		steps, looks = steps+c.Steps, looks+c.Looks
		var why []string
		switch {
		case c.Error != "":
			why = append(why, c.Error)
		case c.Steps == 0:
			why = append(why, "no step of it ran")
		}
		for i, w := range c.Wrong {
			if i == shown {
				why = append(why, fmt.Sprintf("and %d more", len(c.Wrong)-shown))
				break
			}
			why = append(why, fmt.Sprintf("step %d: %s to %s %s is %s, should be %s", w.Step, w.From, w.To, w.Port, w.Got, w.Want))
		}
		if len(why) == 0 {
			r.passed = append(r.passed, c.Name)
			continue
		}
		r.failed = append(r.failed, c.Name)
		r.why[c.Name] = strings.Join(why, "; ")
	}
	r.note = fmt.Sprintf("%d steps, looked at %d times", steps, looks)
	return r.finish()
}

func (r *result) finish() error {
	slices.Sort(r.passed)
	slices.Sort(r.failed)
	if len(r.passed)+len(r.failed) == 0 {
		return fmt.Errorf("the suite's report has no test that ran")
	}
	return nil
}

// render makes the page for people.
func render(s suite, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", s.title, s.about)
	fmt.Fprintf(&b, "`make conformance-policy` builds them, runs them on the demo's clusters, and writes this page.\n\n| cluster | passed | failed |\n|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", r.cluster, len(r.passed), len(r.failed))
	}
	for _, r := range results {
		if r.note != "" {
			fmt.Fprintf(&b, "\nIn %s: %s.\n", r.cluster, r.note)
		}
		for _, name := range r.failed {
			fmt.Fprintf(&b, "\nFailed in %s: %s\n", r.cluster, name)
			if why := r.why[name]; why != "" {
				fmt.Fprintf(&b, "(%s)\n", why)
			}
		}
	}
	fmt.Fprintf(&b, "\n## What ran\n\n")
	var all []string
	for _, r := range results {
		all = append(append(all, r.passed...), r.failed...)
	}
	slices.Sort(all)
	for _, name := range slices.Compact(all) {
		fmt.Fprintf(&b, "- %s\n", name)
	}
	return b.String()
}
