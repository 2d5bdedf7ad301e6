// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Links is the door to the node's devices.
type Links interface {
	// HostSide finds the host side of a pod's interface. It may wait a second for a silent pod.
	HostSide(netip.Addr) (links.Link, error)
	// Interfaces are the indexes of all devices.
	Interfaces() (map[uint32]bool, error)
	LocalAddresses() ([]netip.Addr, error)
	Uplinks() ([]links.Uplink, error)
	// Watch calls changed now and whenever devices, addresses, routes or neighbours change.
	Watch(ctx context.Context, changed func()) error
}

// FinderConfig of a Finder.
type FinderConfig struct {
	Tables *table.Tables
	Links  Links
	// Changed is called when there is something new to report.
	Changed func()
	Log     *slog.Logger
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	// lookAgain finds what changed without a message, e.g. a pod's MAC address.
	lookAgain = 30 * time.Second
	// lookups at a time: each may wait for a pod that doesn't answer.
	lookups = 8
)

// Finder finds.
type Finder struct {
	cfg   FinderConfig
	pods  statedb.ChangeIterator[*table.Row[string, table.Pod]]
	wakes chan struct{} // something changed at the node's devices

	known map[string]*pod

	mu      sync.Mutex
	synced  bool
	nodeErr error
}

// pod is what is known of a pod.
type pod struct {
	row   *table.Row[string, table.Pod]
	link  links.Link
	err   error
	found bool
	wait  time.Duration
	after time.Time
}

// NewFinder makes a Finder.
func NewFinder(cfg FinderConfig) (*Finder, error) {
	changes, err := cfg.Tables.Pods.Changes()
	if err != nil {
		return nil, err
	}
	return &Finder{cfg: cfg, pods: changes, wakes: make(chan struct{}, 1), known: map[string]*pod{}}, nil
}

// Synced says that every pod of the node was found, so that an interface nobody spoke of is nobody's.
func (f *Finder) Synced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced
}

// Err says what hinders looking at the node itself.
func (f *Finder) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodeErr
}

// Run works until ctx ends. complete says whether the tables hold all of the node's pods.
func (f *Finder) Run(ctx context.Context, complete func() bool) error {
	watching := make(chan error, 1)
	go func() { watching <- f.cfg.Links.Watch(ctx, f.wake) }()
	var nextLook time.Time
	for {
		now := time.Now()
		if !now.Before(nextLook) {
			f.forget()
			nextLook = now.Add(lookAgain)
		}
		txn := f.cfg.Tables.DB.ReadTxn()
		changed, retry, err := f.Round(ctx, now, complete())
		if err != nil {
			return err
		}
		if retry.IsZero() || nextLook.Before(retry) {
			retry = nextLook
		}
		settings := f.cfg.Tables.Settings.Watch(txn)
		if err := f.sleep(ctx, retry, changed, settings, watching); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (f *Finder) wake() {
	select {
	case f.wakes <- struct{}{}:
	default:
	}
}

func (f *Finder) sleep(ctx context.Context, until time.Time, pods, settings <-chan struct{}, watching <-chan error) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-watching:
		return fmt.Errorf("watching the node's devices: %w", err)
	case <-pods:
	case <-settings:
	case <-timer.C:
	case <-f.wakes:
		f.changedNode()
	}
	return nil
}

// changedNode makes the next round ask anew for what was not found, at once.
func (f *Finder) changedNode() {
	for _, p := range f.known {
		if !p.found {
			p.after = time.Time{}
		}
	}
}

// forget makes the next round ask anew for every pod.
func (f *Finder) forget() {
	for _, p := range f.known {
		p.after, p.found = time.Time{}, false
	}
}

// Round looks at the node once, and for pods that are not found yet. It tells when the pods change and when a lookup is
// to be repeated.
func (f *Finder) Round(ctx context.Context, now time.Time, complete bool) (changed <-chan struct{}, retry time.Time, err error) {
	txn := f.cfg.Tables.DB.ReadTxn()
	seq, changed := f.pods.Next(txn)
	var gone []string
	for c := range seq {
		key := c.Object.Key
		if c.Deleted {
			delete(f.known, key)
			gone = append(gone, key)
			continue
		}
		if have := f.known[key]; have != nil && have.row.Value == c.Object.Value {
			continue // our own status
		}
		f.known[key] = &pod{row: c.Object}
	}
	nodeErr := f.node()
	looked := f.look(ctx, now)
	if err := f.write(gone); err != nil {
		return nil, time.Time{}, err
	}
	all := complete && nodeErr == nil && looked
	for _, p := range f.known {
		all = all && p.err == nil
		if p.err != nil && (retry.IsZero() || p.after.Before(retry)) {
			retry = p.after
		}
	}
	if nodeErr != nil || !looked {
		retry = now.Add(firstRetry)
	}
	f.mu.Lock()
	first := all && !f.synced
	f.synced, f.nodeErr = f.synced || all, nodeErr
	f.mu.Unlock()
	if first {
		f.cfg.Changed() // what nobody spoke of may go now
	}
	return changed, retry, nil
}

// look asks for the pods that are due, several at a time. It reports whether it could.
func (f *Finder) look(ctx context.Context, now time.Time) bool {
	present, err := f.cfg.Links.Interfaces()
	if err != nil {
		f.cfg.Log.Warn("listing interfaces", "error", err)
		return false
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, lookups)
	for _, p := range f.known {
		if p.found && present[uint32(p.link.Index)] || now.Before(p.after) || ctx.Err() != nil {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f.ask(p, now, present)
		})
	}
	group.Wait()
	return ctx.Err() == nil
}

func (f *Finder) ask(p *pod, now time.Time, present map[uint32]bool) {
	addrs := p.row.Value.Addrs()
	var errs []error
	for _, addr := range addrs {
		l, err := f.cfg.Links.HostSide(addr)
		if err == nil {
			p.link, p.err, p.found, p.wait = l, nil, true, 0
			return
		}
		errs = append(errs, err)
	}
	if present[uint32(p.link.Index)] {
		p.found = true // it was found before and its interface is there: it just didn't answer
		return
	}
	p.err = errors.Join(errs...)
	p.found = false
	p.wait = min(max(2*p.wait, firstRetry), lastRetry)
	p.after = now.Add(p.wait)
}

// write sets the rows of what was found. A pod that was found once and isn't now keeps its rows: taking the programs off
// a live interface would open it.
func (f *Finder) write(gone []string) error {
	t := f.cfg.Tables
	var results []table.Result[string, table.Pod]
	err := t.Write(func(txn statedb.WriteTxn) error {
		for _, key := range gone {
			if err := setRows(t, txn, key, rows{}); err != nil {
				return err
			}
		}
		for key, p := range f.known {
			results = append(results, table.Result[string, table.Pod]{Row: p.row, Err: p.err})
			if !p.found {
				continue
			}
			if err := setRows(t, txn, key, rowsOf(p)); err != nil {
				return err
			}
		}
		return nil
	}, t.Ifaces.Meta(), t.Locals.Meta(), t.Hooks.Meta())
	if err != nil {
		return err
	}
	f.cfg.Changed()
	return t.Pods.SetStatus(results)
}
