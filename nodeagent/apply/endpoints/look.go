// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

// asks are lookups of pods' interfaces. Each runs beside the finder, so that a silent pod delays nobody else's programs.
type asks struct {
	hostSide        func(netip.Addr) (links.Link, error)
	first, repeated chan struct{}
	answered        wakeup.Signal // there are answers

	mu      sync.Mutex
	running int
	idle    chan struct{} // closes when none runs
	answers []answer
}

// answer is what was found for a pod.
type answer struct {
	pod  *pod
	link links.Link
	err  error
}

func newAsks(hostSide func(netip.Addr) (links.Link, error)) *asks {
	return &asks{
		hostSide: hostSide, first: make(chan struct{}, lookups), repeated: make(chan struct{}, repeated), answered: wakeup.New(),
	}
}

// ask looks for a pod by its addresses. Lookups that are repeated have a share of their own.
func (a *asks) ask(ctx context.Context, p *pod) {
	share, addrs := a.first, slices.Clone(p.want.Addresses)
	if p.asked && p.err != nil {
		share = a.repeated
	}
	a.mu.Lock()
	if a.running++; a.running == 1 {
		a.idle = make(chan struct{})
	}
	a.mu.Unlock()
	go func() {
		out := answer{pod: p, err: ctx.Err()}
		select {
		case share <- struct{}{}:
			out.link, out.err = a.find(addrs)
			<-share
		case <-ctx.Done():
			out.err = ctx.Err()
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.answers = append(a.answers, out)
		if a.running--; a.running == 0 {
			close(a.idle)
		}
		a.answered.Raise()
	}()
}

func (a *asks) find(addrs []netip.Addr) (links.Link, error) {
	var errs []error
	for _, addr := range addrs {
		l, err := a.hostSide(addr)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return links.Link{}, errors.Join(errs...)
}

// wait waits until no lookup runs, but not for long.
func (a *asks) wait(ctx context.Context, limit time.Duration) {
	a.mu.Lock()
	idle, running := a.idle, a.running
	a.mu.Unlock()
	if running == 0 {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-idle:
	case <-timer.C:
	}
}

func (a *asks) take() []answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.answers
	a.answers = nil
	return out
}

// look takes in what was found and asks for the pods that are due. It reports whether it could.
func (f *Finder) look(ctx context.Context, now time.Time) bool {
	present, err := f.cfg.Links.Interfaces()
	if err != nil {
		f.cfg.Log.Warn("listing interfaces", "error", err)
		return false
	}
	f.mu.Lock()
	if f.version == 0 || !maps.Equal(f.interfaces, present) {
		f.interfaces = present
		f.version++
	}
	f.mu.Unlock()
	f.learn(now, present)
	for _, p := range f.known {
		if p.busy || p.found && present[uint32(p.link.Index)] || now.Before(p.after) || ctx.Err() != nil {
			continue
		}
		p.busy = true
		f.asks.ask(ctx, p)
	}
	f.asks.wait(ctx, grace)
	f.learn(now, present)
	return ctx.Err() == nil
}

// learn takes in the answers that came. Those about pods that are gone meanwhile do no harm.
func (f *Finder) learn(now time.Time, present map[uint32]bool) {
	for _, a := range f.asks.take() {
		p := a.pod
		p.busy, p.asked = false, true
		switch {
		case a.err == nil:
			p.meets(a.link)
		case present[uint32(p.link.Index)]:
			p.found = true // it was found before and its interface is there: it just didn't answer
		default:
			p.err, p.found = a.err, false
			p.wait = min(max(2*p.wait, firstRetry), lastRetry)
			p.after = now.Add(p.wait)
		}
	}
}
