// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// passFigures are those of a benchmark's line: nanoseconds and bytes an operation.
var passFigures = regexp.MustCompile(`([0-9.]+) ns/op\s+([0-9]+) B/op`)

// measureStatus runs the status controller's own benchmark: one pass after one of 100 nodes reported one of 500 policies
// anew.
func measureStatus(say func(string, ...any)) (*Status, error) {
	const policies, nodes = 500, 100
	name := fmt.Sprintf("Pass/%d_policies,_%d_nodes$", policies, nodes)
	say("go test -bench %s ./operator/controllers", name)
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", name, "-benchmem", "./operator/controllers").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmark the status pass: %w: %s", err, out)
	}
	found := passFigures.FindSubmatch(out)
	if found == nil {
		return nil, fmt.Errorf("benchmark the status pass: no figures in %q", out)
	}
	ns, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return nil, fmt.Errorf("benchmark the status pass: %w", err)
	}
	garbage, err := strconv.ParseInt(string(found[2]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("benchmark the status pass: %w", err)
	}
	return &Status{Load: load(), Policies: policies, Nodes: nodes, CPU: ms(time.Duration(ns)), Garbage: garbage}, nil
}
