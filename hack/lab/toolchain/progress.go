// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress measures a run of builds by the packages compiled, the only unit
// that the go command tells while it works. Linking counts for nothing, so
// the estimate is a little short at the end.
type progress struct {
	w           io.Writer
	started     time.Time
	total, done int

	mu      sync.Mutex
	tool    Tool
	toolAt  time.Time
	printed time.Time
}

const progressEvery = 10 * time.Second

func (p *progress) begin(t Tool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tool, p.toolAt, p.printed = t, time.Now(), time.Now()
	fmt.Fprintf(p.w, "  %s %s: building\n", t.Name, t.Version)
}

func (p *progress) compiled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
}

// tick prints a line now and then until the returned function is called.
func (p *progress) tick() (stop func()) {
	end := make(chan struct{})
	var gone sync.WaitGroup
	gone.Go(func() {
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				p.line()
			}
		}
	})
	return func() { close(end); gone.Wait() }
}

func (p *progress) line() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "  %s %s: %s, %s\n", p.tool.Name, p.tool.Version,
		time.Since(p.toolAt).Round(time.Second), estimate(p.done, p.total, time.Since(p.started)))
}

// estimate words how far the builds are and how long they will still take.
func estimate(done, total int, spent time.Duration) string {
	if total == 0 || done >= total {
		return "linking"
	}
	part := float64(done) / float64(total)
	text := fmt.Sprintf("%d of %d packages (%d%%)", done, total, int(100*part))
	if part < 0.02 {
		return text // too early to say
	}
	left := time.Duration(float64(spent) * (1 - part) / part)
	if left < time.Minute {
		return text + ", less than a minute left for all tools"
	}
	return fmt.Sprintf("%s, about %d min left for all tools", text, int(left.Minutes()+0.5))
}

func (p *progress) end(t Tool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "  %s %s: built in %s\n", t.Name, t.Version, time.Since(p.toolAt).Round(100*time.Millisecond))
}
