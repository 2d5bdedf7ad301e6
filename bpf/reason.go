// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import "strconv"

// IsDrop says whether the reason means that the packet was dropped.
func (r Reason) IsDrop() bool { return r > ReasonFirstDrop && r < ReasonCount }

// MetricIndex returns the index of a counter in fl_metrics.
func MetricIndex(r Reason, h Hook) uint32 { return uint32(r)*uint32(HookCount) + uint32(h) }

// MetricOf is the inverse of MetricIndex.
func MetricOf(index uint32) (Reason, Hook) {
	return Reason(index / uint32(HookCount)), Hook(index % uint32(HookCount))
}

// nameOf names a generated constant; a number from a newer or corrupt source
// keeps its number.
func nameOf[T ~uint8](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return strconv.Itoa(int(v))
}
