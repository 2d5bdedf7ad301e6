// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wakeup has the one way in which parts of Fairlead wake each other: a signal without contents that coalesces.
//
//	any goroutine ── Raise ──► Signal ── receive ──► one goroutine that looks at the state and does what is due
//
// What changed is in the state and not in the signal, so that a thousand changes cost the receiver one look, and whoever
// raises it never waits.
package wakeup

// Signal is raised or not. Receive from it to wait for it and take it down. A nil Signal is never up.
type Signal chan struct{}

// New makes a Signal that isn't raised.
func New() Signal { return make(Signal, 1) }

// Raise wakes the receiver, now or as soon as it looks. It doesn't block. Raised twice before it was received, it is
// received once, and after the second Raise.
func (s Signal) Raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}
