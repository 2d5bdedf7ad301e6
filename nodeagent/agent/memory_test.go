// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	for _, c := range []struct {
		now  int
		live uint64
		want int
	}{
		{gcSmall, 4 << 20, gcSmall},
		{gcSmall, largeHeap - 1, gcSmall},
		{gcSmall, largeHeap, gcLarge},
		{gcLarge, largeHeap - 1, gcLarge}, // no back and forth at the limit
		{gcLarge, largeHeap/2 - 1, gcSmall},
	} {
		if got := percentFor(c.now, c.live); got != c.want {
			t.Errorf("with %d%% and %d bytes: %d%%, want %d%%", c.now, c.live, got, c.want)
		}
	}
}

func TestAfterCollectionsGoesOn(t *testing.T) {
	var runs atomic.Int32
	afterCollections(func() { runs.Add(1) })
	for deadline := time.Now().Add(time.Minute); runs.Load() < 3; time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatalf("ran %d times", runs.Load())
		}
	}
}
