// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// result is what came of a package's tests on a kernel.
type result struct {
	kernel, pkg             string
	passed, failed, skipped []string
}

func (r result) String() string {
	out := fmt.Sprintf("%d passed", len(r.passed))
	if len(r.failed) > 0 {
		out += fmt.Sprintf(", %d failed", len(r.failed))
	}
	if len(r.skipped) > 0 {
		out += fmt.Sprintf(", %d skipped", len(r.skipped))
	}
	return out
}

// A test's end, at the beginning of a line: parts of a test are indented.
var ended = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)

func parse(out string) (r result) {
	for _, m := range ended.FindAllStringSubmatch(out, -1) {
		switch m[1] {
		case "PASS":
			r.passed = append(r.passed, m[2])
		case "FAIL":
			r.failed = append(r.failed, m[2])
		case "SKIP":
			r.skipped = append(r.skipped, m[2])
		}
	}
	return r
}

const about = `# Other kernels

Tests of what talks to the kernel, on Debian's kernels in emulated machines:

    make kernels

A cell counts tests: those that passed, and those that failed or that say that the kernel lacks what they test. The kernel
that everything else is tested with is the machine's own.
`

func render(all []result) string {
	var b strings.Builder
	b.WriteString(about)
	var kernels, pkgs []string
	cells := map[[2]string]result{}
	for _, r := range all {
		if !slices.Contains(kernels, r.kernel) {
			kernels = append(kernels, r.kernel)
		}
		if !slices.Contains(pkgs, r.pkg) {
			pkgs = append(pkgs, r.pkg)
		}
		cells[[2]string{r.kernel, r.pkg}] = r
	}
	fmt.Fprintf(&b, "\n| tests of | %s |\n|---%s|\n", strings.Join(kernels, " | "), strings.Repeat("|---", len(kernels)))
	for _, p := range pkgs {
		fmt.Fprintf(&b, "| `%s` |", strings.TrimPrefix(p, "./"))
		for _, k := range kernels {
			fmt.Fprintf(&b, " %s |", cells[[2]string{k, p}])
		}
		b.WriteString("\n")
	}
	for _, list := range []struct {
		title string
		names func(result) []string
	}{{"Failed", func(r result) []string { return r.failed }}, {"Skipped", func(r result) []string { return r.skipped }}} {
		var lines []string
		for _, r := range all {
			for _, name := range list.names(r) {
				lines = append(lines, fmt.Sprintf("- %s, `%s`: %s\n", r.kernel, strings.TrimPrefix(r.pkg, "./"), name))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s", list.title, strings.Join(lines, ""))
		}
	}
	return b.String()
}
