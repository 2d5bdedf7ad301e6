// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wakeup

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestRaisedTwiceReceivedOnce(t *testing.T) {
	s := New()
	s.Raise()
	s.Raise()
	<-s
	select {
	case <-s:
		t.Error("received twice")
	default:
	}
	s.Raise()
	<-s
	Signal(nil).Raise()
}

// Whatever the receiver does in between, it looks once more after the last change.
func TestTheLastChangeIsSeen(t *testing.T) {
	const raisers, each = 8, 1000
	s := New()
	var state atomic.Int64
	var wg sync.WaitGroup
	for range raisers {
		wg.Go(func() {
			for range each {
				state.Add(1)
				s.Raise()
			}
		})
	}
	for seen := int64(0); seen < raisers*each; {
		<-s // blocks for ever if a wake-up was lost
		seen = state.Load()
	}
	wg.Wait()
}
