// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Step is one follower, whatever its rows are. Its methods are called in this order, each of all steps before the next.
type Step interface {
	Name() string
	Load(ctx context.Context)
	Collect(txn *table.Txn) <-chan struct{}
	Upsert(ctx context.Context, now time.Time)
	Prune(complete bool)
	Remove(ctx context.Context, now time.Time)
	Commit(now time.Time) (retry time.Time)
	Outcome() Outcome
	// Resync makes the next pass compare everything with the kernel.
	Resync()
}

// Loop runs steps in order.
type Loop struct {
	tables *table.Tables
	steps  []Step
	after  []Hook
}

// NewLoop makes a loop over the given steps, in this order.
func NewLoop(t *table.Tables, steps ...Step) *Loop { return &Loop{tables: t, steps: steps} }

// Hook runs at the end of a pass, when everything is written and removed. One that fails is called again after
// [hookRetry] and must itself remember what it still owes; its error is an outcome of the pass.
type Hook struct {
	Name string
	Run  func(context.Context) error
}

const hookRetry = time.Second

// After adds a hook.
func (l *Loop) After(h Hook) { l.after = append(l.after, h) }

// Pass is what one pass did, and when the next is due.
type Pass struct {
	Outcomes []Outcome
	Retry    time.Time         // zero: only when something changes
	Watch    []<-chan struct{} // each closes when there is more to do
}

// Failing counts rows that the kernel doesn't hold as wanted.
func (p Pass) Failing() (n int) {
	for _, o := range p.Outcomes {
		n += o.Failing
	}
	return n
}

// Resync makes the next pass compare everything with the kernel.
func (l *Loop) Resync() {
	for _, s := range l.steps {
		s.Resync()
	}
}

// Pass does what there is to do. complete says of a step whether its table holds everything, so that what it doesn't
// want may go. It is asked before the tables are read: whoever fills a table says so after its last row, and a pass that reads
// first and asks then may take that row for one that nobody wants.
func (l *Loop) Pass(ctx context.Context, now time.Time, complete func(step string) bool) Pass {
	var p Pass
	whole := make([]bool, len(l.steps))
	for i, s := range l.steps {
		s.Load(ctx)
		whole[i] = complete(s.Name())
	}
	l.tables.Read(func(txn *table.Txn) {
		for _, s := range l.steps {
			p.Watch = append(p.Watch, s.Collect(txn))
		}
	})
	for _, s := range l.steps {
		s.Upsert(ctx, now)
	}
	for i, s := range l.steps {
		s.Prune(whole[i])
	}
	for _, s := range slices.Backward(l.steps) {
		s.Remove(ctx, now)
	}
	for _, s := range l.steps {
		p.Retry = earlier(p.Retry, s.Commit(now))
		p.Outcomes = append(p.Outcomes, s.Outcome())
	}
	for _, h := range l.after {
		if err := h.Run(ctx); err != nil {
			p.Outcomes = append(p.Outcomes, Outcome{Step: h.Name, Failing: 1, Err: err})
			p.Retry = earlier(p.Retry, now.Add(hookRetry))
		}
	}
	return p
}
