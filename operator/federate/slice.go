// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// What is judged or withdrawn while the Intake's lock is held once: about a millisecond's work. Large records take longer, so
// their bytes are bounded too.
const (
	sliceSize  = 500
	sliceBytes = 256 << 10
)

// inSlices calls f for each element, a slice at a time, and delivers the changes that it gives. The lock, which is held, is given
// up after each slice, so that others get their turn: f finds again what it needs of the Intake.
func inSlices[T any](i *Intake, all []T, size func(T) int, f func(T) *relayv1.Change) {
	for len(all) > 0 {
		n := sliceOf(all, i.slice, size)
		var changes []*relayv1.Change
		for _, one := range all[:n] {
			if change := f(one); change != nil {
				changes = append(changes, change)
			}
		}
		i.deliver(changes)
		all = all[n:]
		i.mu.Unlock()
		i.mu.Lock()
	}
}

// sliceOf is how many elements are the next slice. One always is, whatever its size.
func sliceOf[T any](all []T, most int, size func(T) int) int {
	bytes := 0
	for n, one := range all {
		if bytes += size(one); n == most || n > 0 && bytes > sliceBytes {
			return n
		}
	}
	return len(all)
}

// sizeOf is how many bytes of a record are judged: those in the store, and those that agents have.
func (i *Intake) sizeOf(key string) int {
	r := i.remotes[record.ClusterOf(key)]
	if r == nil {
		return 0
	}
	h := r.kinds[record.Kind(key)][key]
	if h == nil {
		return 0
	}
	return len(h.raw) + len(h.good)
}
