// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"slices"
	"time"
)

// Merger puts the verdicts of many nodes into the order of time. Each node's come in order; between nodes they come as
// the network brings them, so a verdict is held back for a moment, in case an older one is on its way.
type Merger struct {
	held []Flow
}

// Add takes a verdict.
func (m *Merger) Add(v Flow) {
	at, _ := slices.BinarySearchFunc(m.held, v, func(a, b Flow) int {
		if a.Time.After(b.Time) {
			return 1
		}
		return -1 // equals keep the order in which they came
	})
	m.held = slices.Insert(m.held, at, v)
}

// Until gives what happened before t, oldest first, and forgets it.
func (m *Merger) Until(t time.Time) []Flow {
	n := 0
	for n < len(m.held) && m.held[n].Time.Before(t) {
		n++
	}
	out := slices.Clone(m.held[:n])
	m.held = slices.Delete(m.held, 0, n)
	return out
}

// All gives everything, oldest first, and forgets it.
func (m *Merger) All() []Flow {
	out := m.held
	m.held = nil
	return out
}
