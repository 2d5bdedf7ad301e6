// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

// result is what came out on one cluster.
type result struct {
	cluster        string
	passed, failed []string
}

// suite is as much of Ginkgo's JSON report as is read here.
type suite struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
	}
}

func read(cluster, path string) (result, error) {
	r := result{cluster: cluster}
	data, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	return r, r.parse(data)
}

func (r *result) parse(data []byte) error {
	var suites []suite
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
	slices.Sort(r.passed)
	slices.Sort(r.failed)
	if len(r.passed)+len(r.failed) == 0 {
		return fmt.Errorf("the suite's report has no spec that ran")
	}
	return nil
}

// render makes the page for people.
func render(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# NetworkPolicy: Kubernetes' own tests\n\n")
	fmt.Fprintf(&b, "`make conformance-policy` builds the end-to-end tests of Kubernetes %s, runs those of NetworkPolicy (without SCTP, which\n", toolchain.KubernetesVersion)
	fmt.Fprintf(&b, "a kernel may not have) on the demo's clusters, and writes this page.\n\n| cluster | passed | failed |\n|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", r.cluster, len(r.passed), len(r.failed))
	}
	for _, r := range results {
		for _, name := range r.failed {
			fmt.Fprintf(&b, "\nFailed in %s: %s\n", r.cluster, name)
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
