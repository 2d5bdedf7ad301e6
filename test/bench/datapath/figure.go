// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// figure is what one cell of the table says.
type figure struct {
	median, least, most float64 // ns, no-op subtracted
	noop                float64
	strays              uint64 // operations that met another fate
}

// String implements fmt.Stringer.
func (f figure) String() string { return fmt.Sprintf("%.0f (%.0f-%.0f)", f.median, f.least, f.most) }

// summarize takes the rounds' differences and no-op times, in ns an operation.
func summarize(diffs, noops []float64) figure {
	slices.Sort(diffs)
	slices.Sort(noops)
	return figure{
		median: diffs[len(diffs)/2], least: diffs[0], most: diffs[len(diffs)-1],
		noop: noops[len(noops)/2],
	}
}

// threadCPU is the CPU time of the calling thread, which must be locked.
func threadCPU() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("reading the thread's CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// perOp measures n operations done by f, in ns each.
func perOp(n int, f func() error) (float64, error) {
	start, err := threadCPU()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	end, err := threadCPU()
	return float64(end-start) / float64(n), err
}

func parseCounts(s string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 1_000_000 {
			return nil, fmt.Errorf("%q is no count between 1 and 1000000", part)
		}
		out = append(out, n)
	}
	return out, nil
}
