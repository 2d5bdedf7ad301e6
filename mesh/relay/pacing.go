// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bounds that a Server keeps unless its configuration says otherwise.
const (
	// DefaultSnapshots is how many agents are sent a snapshot at a time. After an operator's restart all agents of a
	// cluster want one, and changes must reach those that are served already in the meantime.
	DefaultSnapshots = 8
	// DefaultStall is how long an agent may take to accept one batch before its connection is closed.
	DefaultStall = 30 * time.Second
)

// keepPlace is how long one snapshot counts against the limit: an agent that takes longer is slow, so it costs little,
// and the others should not have to wait for it.
const keepPlace = 5 * time.Second

// places limits how many snapshots are under way. Agents get a place in the order in which they asked.
type places struct {
	free    *semaphore.Weighted
	keep    time.Duration
	taken   atomic.Int64
	waiting atomic.Int64
}

func newPlaces(n int) *places { return &places{free: semaphore.NewWeighted(int64(n)), keep: keepPlace} }

// try takes a place if one is free and nobody waits. leave gives it back; it may be called more than once.
func (p *places) try() (leave func(), ok bool) {
	if !p.free.TryAcquire(1) {
		return nil, false
	}
	return p.taker(), true
}

// take waits for a place until ctx ends, which is the only error.
func (p *places) take(ctx context.Context) (leave func(), err error) {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	if err := p.free.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return p.taker(), nil
}

func (p *places) taker() func() {
	p.taken.Add(1)
	leave := sync.OnceFunc(func() {
		p.taken.Add(-1)
		p.free.Release(1)
	})
	timer := time.AfterFunc(p.keep, leave)
	return func() { timer.Stop(); leave() }
}
