// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/fairlead-mesh/fairlead/nodeagent/report"
)

// How much the heap grows, in percent of what lives, before it is collected. Most of an agent's heap is the mesh's records, which
// stay: with Go's 100 a large one would be twice as large for the little garbage that a change makes. A small one is not worth
// the processor's time, least of all while a snapshot makes it grow.
const (
	gcSmall   = 100
	gcLarge   = 40
	largeHeap = 64 << 20 // bytes that live; below half of it, it is small again
)

// LimitHeap sets how often this process collects garbage, by what lives, unless its environment says so (GOGC).
func LimitHeap() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := gcSmall
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterCollections(func() {
		metrics.Read(live)
		if next := percentFor(percent, live[0].Value.Uint64()); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
	})
}

// afterCollections runs f after each collection of garbage.
func afterCollections(f func()) {
	type collected struct{ _ *int } // with a pointer, because small ones without share a block and go with it
	runtime.AddCleanup(&collected{}, func(struct{}) { f(); afterCollections(f) }, struct{}{})
}

func percentFor(now int, live uint64) int {
	switch {
	case live >= largeHeap:
		return gcLarge
	case live < largeHeap/2:
		return gcSmall
	}
	return now
}

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
