// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Links is the driver of the node's devices.
type Links interface {
	// HostSide finds the host side of a pod's interface. It may wait a second for a silent pod.
	HostSide(netip.Addr) (links.Link, error)
	// Interfaces are the indexes of all devices.
	Interfaces() (map[uint32]bool, error)
	LocalAddresses() ([]netip.Addr, error)
	// Uplinks are the devices over which packets leave the node, also those that only reach guarded prefixes.
	Uplinks(guarded []netip.Prefix) ([]links.Uplink, error)
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
	// lookups at a time, of pods that were not asked for yet and of those that didn't answer: each may wait a second.
	lookups, repeated = 128, 8
	// grace is how long a round waits for answers: most come at once. The others are written by a later round.
	grace = 50 * time.Millisecond
)

// Finder finds.
type Finder struct {
	cfg   FinderConfig
	pods  table.Feed[string, table.Pod]
	rows  owned
	wakes wakeup.Signal // something changed at the node's devices

	known map[string]*pod
	asks  *asks
	// left are interfaces of pods whose records went, by index. A pod that was deleted by force runs on for a while.
	left map[uint32]string

	mu         sync.Mutex
	synced     bool
	looked     bool
	nodeErr    error
	interfaces map[uint32]bool // of the node, at the last look
	version    uint64          // of interfaces
}

// pod is what is known of a pod.
type pod struct {
	want  table.Pod
	link  links.Link
	moved bool // it had another interface before
	err   error
	found bool
	asked bool // at least once, with an answer
	busy  bool // it is being asked for
	wait  time.Duration
	after time.Time
}

// NewFinder makes a Finder.
func NewFinder(cfg FinderConfig) *Finder {
	return &Finder{
		cfg: cfg, pods: cfg.Tables.Pods.Follow(), rows: newOwned(cfg.Tables.ForNode()),
		wakes: wakeup.New(), known: map[string]*pod{}, left: map[uint32]string{}, asks: newAsks(cfg.Links.HostSide),
	}
}

// Synced says that every pod of the node was found, so that an interface nobody spoke of is nobody's.
func (f *Finder) Synced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced
}

// Looked says that every pod that was planned at the start was looked for, and those that were found have their rows.
func (f *Finder) Looked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looked
}

// Interfaces are the indexes of the node's devices at the last look, and a number that changes when they do. Nobody changes
// the map.
func (f *Finder) Interfaces() (version uint64, present map[uint32]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version, f.interfaces
}

// Gone says that a device is not there any more. It may have come after the last look, with programs that the CNI plugin
// attached, so one that isn't known is looked for.
func (f *Finder) Gone(ifindex uint32) bool {
	if _, present := f.Interfaces(); present[ifindex] {
		return false
	}
	present, err := f.cfg.Links.Interfaces()
	return err == nil && !present[ifindex]
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
		settings, guards := f.cfg.Tables.Settings.Watch(), f.cfg.Tables.Guards.Watch()
		changed, retry := f.Round(ctx, now, complete())
		if retry.IsZero() || nextLook.Before(retry) {
			retry = nextLook
		}
		if err := f.sleep(ctx, retry, watching, changed, settings, guards); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// Look makes the finder look again: what it was told to be complete may have changed.
func (f *Finder) Look() { f.wake() }

func (f *Finder) wake() {
	f.wakes.Raise()
}

func (f *Finder) sleep(ctx context.Context, until time.Time, watching <-chan error, pods, settings, guards <-chan struct{}) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-watching:
		return fmt.Errorf("watching the node's devices: %w", err)
	case <-pods:
	case <-settings:
	case <-guards:
	case <-timer.C:
	case <-f.asks.answered:
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

// changed is a pod whose record is another one, or new. With other addresses it is another pod of the same name, and what was
// found for the former one says nothing.
func (p *pod) changed(want table.Pod) *pod {
	if p == nil || !slices.Equal(p.want.Addresses, want.Addresses) {
		return &pod{want: want}
	}
	return &pod{want: want, link: p.link, moved: p.moved}
}

// Round looks at the node once, and for pods that are not found yet. It tells when the pods change and when a lookup is
// to be repeated.
func (f *Finder) Round(ctx context.Context, now time.Time, complete bool) (changed <-chan struct{}, retry time.Time) {
	planned := f.cfg.Tables.Settings.Len() > 0 // written together with the pods
	var gone []string
	f.cfg.Tables.Read(func(txn *table.Txn) {
		changed = f.pods.Next(txn, func(c table.RowChange[string, table.Pod]) {
			before := f.known[c.Key]
			if before != nil && before.link.Index != 0 {
				f.left[uint32(before.link.Index)] = before.link.Name
			}
			if c.Deleted {
				delete(f.known, c.Key)
				gone = append(gone, c.Key)
				return
			}
			f.known[c.Key] = before.changed(c.Value)
		})
	})
	nodeErr := f.node()
	listed := f.look(ctx, now)
	f.write(gone)
	looked := listed
	all := complete && nodeErr == nil && looked
	for _, p := range f.known {
		all = all && p.err == nil && p.asked
		looked = looked && p.asked
		if p.err != nil && (retry.IsZero() || p.after.Before(retry)) {
			retry = p.after
		}
	}
	if nodeErr != nil || !listed {
		retry = now.Add(firstRetry)
	}
	f.mu.Lock()
	first := all && !f.synced
	first = first || !f.looked && planned && nodeErr == nil && looked
	f.synced, f.nodeErr = f.synced || all, nodeErr
	f.looked = f.looked || planned && nodeErr == nil && looked
	f.mu.Unlock()
	if first {
		f.cfg.Changed() // what nobody spoke of may go now
	}
	return changed, retry
}

// meets notes the interface that answers for a pod.
func (p *pod) meets(l links.Link) {
	p.moved = p.moved || p.link.Index != 0 && p.link.Index != l.Index
	p.link, p.err, p.found, p.wait = l, nil, true, 0
}

// write sets the rows of what was found. A pod that was found once and isn't now keeps its rows: taking the programs off
// a live interface would open it.
func (f *Finder) write(gone []string) {
	var keys []string
	var pods []table.Pod
	var errs []error
	contested := f.contest()
	f.cfg.Tables.Write(func(txn *table.Txn) {
		f.rows.hooks.Set(txn, ownerLeft, f.leftHooks())
		for _, key := range gone {
			f.rows.set(txn, key, rows{})
		}
		for key, p := range f.known {
			err := p.err
			switch other := contested[p]; {
			case other != "":
				err = fmt.Errorf("interface %s answers for it and for pod %s", p.link.Name, other)
				f.rows.set(txn, key, rows{hooks: hooksOf(p)})
			case p.found:
				f.rows.set(txn, key, rowsOf(p))
			}
			if p.asked {
				keys, pods, errs = append(keys, key), append(pods, p.want), append(errs, err)
			}
		}
	})
	f.pods.Settle(keys, pods, errs)
	f.cfg.Changed()
}
