// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"sync"

	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

// Ring keeps the newest flows. Readers follow it by position; one that is too slow misses the oldest.
type Ring struct {
	mu    sync.Mutex
	flows []flow.Flow
	next  uint64        // position of the next flow
	added chan struct{} // closed and replaced with each addition
}

// NewRing makes a ring of a size.
func NewRing(size int) *Ring {
	return &Ring{flows: make([]flow.Flow, size), added: make(chan struct{})}
}

// Add puts flows at the end.
func (r *Ring) Add(flows ...flow.Flow) {
	if len(flows) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range flows {
		r.flows[r.next%uint64(len(r.flows))] = f
		r.next++
	}
	close(r.added)
	r.added = make(chan struct{})
}

func (r *Ring) oldest() uint64 { return r.next - min(r.next, uint64(len(r.flows))) }

// From gives the flows from a position on, the position after them, how many were missed because the ring had moved on,
// and a channel that closes when there are more.
func (r *Ring) From(position uint64) (flows []flow.Flow, next, missed uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if oldest := r.oldest(); position < oldest {
		missed = oldest - position
		position = oldest
	}
	for ; position < r.next; position++ {
		flows = append(flows, r.flows[position%uint64(len(r.flows))])
	}
	return flows, r.next, missed, r.added
}
