// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// steps prints a line for each step, with the time since the start.
type steps struct {
	mu      sync.Mutex
	w       io.Writer
	started time.Time
}

func newSteps(w io.Writer) *steps { return &steps{w: w, started: time.Now()} }

func (s *steps) done(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "[%5.1fs] %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}
