// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"
	"time"
)

func TestOnlyATryInItsTimeDoublesTheBackoff(t *testing.T) {
	var b backoff
	now := time.Unix(0, 0)
	b.failed(now)
	if b.wait != firstRetry || b.until != now.Add(firstRetry) {
		t.Fatalf("after the first failure: %+v", b)
	}
	first := b
	b.failed(b.until.Add(-1)) // something else changed, and woke the loop
	if b != first {
		t.Errorf("a failure before its time: %+v, want %+v", b, first)
	}
	b.failed(first.until)
	if b.wait != 2*firstRetry || b.until != first.until.Add(2*firstRetry) {
		t.Errorf("after the second failure in its time: %+v", b)
	}
	for range 20 {
		b.failed(b.until)
	}
	if b.wait != lastRetry {
		t.Errorf("it ends at %s, want %s", b.wait, lastRetry)
	}
}
