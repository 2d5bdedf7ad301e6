// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"runtime/debug"

	"github.com/fairlead-mesh/fairlead/nodeagent/report"
)

// gcPercent is how much the heap grows, in percent of what lives, before it is collected. Most of an agent's heap is the mesh's
// records, which stay: Go's 100 would double them for the little garbage that a change makes.
const gcPercent = 40

// releaseMemory gives back to the system what a snapshot, or the disk, took on its way into the tables, when all of it is in
// the kernel. Go does that in its own time, which for an agent without work is minutes, and at up to the peak's size.
func (a *Agent) releaseMemory() {
	snapshots := a.Intake.Snapshots()
	a.mu.Lock()
	done := a.synced.Applied != (report.Position{}) && len(a.synced.Failing) == 0 && a.policyInForce()
	a.mu.Unlock()
	if !done || a.released && a.releasedAfter == snapshots {
		return
	}
	a.released, a.releasedAfter = true, snapshots
	go debug.FreeOSMemory() // collects garbage first, which takes a while
}

// LimitHeap sets how often this process collects garbage, unless its environment says so (GOGC).
func LimitHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
