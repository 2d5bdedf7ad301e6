// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much the heap grows, in percent of what lives, before it is collected. Most of an agent's heap is the mesh's
// records, which stay: Go's 100 would double them for the little garbage that a change makes.
const gcPercent = 40

// LimitHeap sets how often this process collects garbage, unless its environment says so (GOGC).
func LimitHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
