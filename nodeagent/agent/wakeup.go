// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import "sync"

// wakeup is a channel that closes when there is something to do, as the tables' do.
type wakeup struct{ state *wakeupState }

type wakeupState struct {
	mu sync.Mutex
	ch chan struct{}
}

func newWakeup() wakeup { return wakeup{&wakeupState{ch: make(chan struct{})}} }

func (w wakeup) wake() {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	close(w.state.ch)
	w.state.ch = make(chan struct{})
}

// channel closes at the next wake. Whoever takes it before he looks misses none.
func (w wakeup) channel() <-chan struct{} {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	return w.state.ch
}
