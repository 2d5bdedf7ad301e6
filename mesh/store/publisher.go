// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
)

// ErrFenced ends a Publisher's Run when another leader of the same cluster has taken over. The process should give up
// its leadership: only one may write.
var ErrFenced = errors.New("another leader of this cluster publishes now")

// HeartbeatInterval is how often a Publisher writes its heartbeat.
const HeartbeatInterval = 15 * time.Second

// Publisher makes the cluster's prefix in the store equal to what is desired.
type Publisher struct {
	cluster string
	log     *slog.Logger
	id      string // names this publisher in the fence
	beat    time.Duration
	wake    wakeup.Signal

	mu      sync.Mutex
	desired record.Set      // nil until the first SetDesired
	dirty   map[string]bool // keys whose desired value may differ from the store's
	writing int             // operations taken from dirty and not yet written
	status  PublishStatus

	// Owned by Run's goroutine.
	actual   record.Set // what the store holds
	fence    int64      // revision of the fence after our newest write
	lastBeat time.Time  // newest heartbeat written or found
	canary   bool       // the canary lies in the store
}

// PublishStatus tells how publishing goes.
type PublishStatus struct {
	Reachable   bool      // the last exchange with the store succeeded
	Synced      bool      // the store holds what is desired
	Published   int       // records of ours in the store
	Pending     int       // keys still to be compared or written
	LastSuccess time.Time // when the store last answered as it should
	LastError   error     // of the last failure, nil once an exchange succeeded again
}

// NewPublisher makes a Publisher for a cluster. It publishes nothing until it was given a desired set.
func NewPublisher(cluster string, log *slog.Logger) *Publisher {
	return &Publisher{
		cluster: cluster,
		log:     cmp.Or(log, slog.Default()),
		id:      rand.Text(),
		beat:    HeartbeatInterval,
		wake:    wakeup.New(),
		dirty:   map[string]bool{},
	}
}

// SetDesired replaces what is desired. The set is the Publisher's from then on. Until the first call nothing is published
// or deleted, so call it only when the set is complete: what it lacks is deleted from the store.
func (p *Publisher) SetDesired(set record.Set) {
	if set == nil {
		set = record.Set{}
	}
	p.dropForeign(set)
	p.mu.Lock()
	d := record.Diff(p.desired, set)
	p.desired = set
	p.markDirty(d)
	p.mu.Unlock()
	p.nudge()
}

// Apply changes what is desired. Before the first SetDesired it does nothing.
func (p *Publisher) Apply(d record.Delta) {
	p.dropForeign(d.Put)
	p.mu.Lock()
	if p.desired != nil {
		p.desired.Apply(d)
		p.markDirty(d)
	}
	p.mu.Unlock()
	p.nudge()
}

// dropForeign leaves out what is no record of this cluster, so that one wrong key doesn't stop all others.
func (p *Publisher) dropForeign(set record.Set) {
	for key := range set {
		if record.ClusterOf(key) != p.cluster || record.Kind(key) == "" {
			p.log.Error("asked to publish what is no record of this cluster, left out", "key", key, "cluster", p.cluster)
			delete(set, key)
		}
	}
}

// markDirty notes changed keys; the lock is held.
func (p *Publisher) markDirty(d record.Delta) {
	for key := range d.Put {
		p.dirty[key] = true
	}
	for _, key := range d.Delete {
		p.dirty[key] = true
	}
	p.countPending()
}

func (p *Publisher) nudge() {
	p.wake.Raise()
}

// Status tells how publishing goes.
func (p *Publisher) Status() PublishStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Run publishes until ctx ends (it returns ctx's error) or another leader takes over (ErrFenced). Call it only as the
// cluster's leader: it takes over from a former one. All other failures are retried. Run may be called again, with
// another Store, once it has returned.
func (p *Publisher) Run(ctx context.Context, s *Store) error {
	retry := newBackoff(200*time.Millisecond, 10*time.Second)
	claimed := false
	for {
		err := p.session(ctx, s, &claimed, retry.reset)
		p.failed(err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrFenced) {
			return err
		}
		p.log.Warn("publishing to the shared etcd failed", "cluster", p.cluster, "error", err)
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// session claims the prefix, finds out what it holds, and keeps it equal to what is desired until something fails.
func (p *Publisher) session(ctx context.Context, s *Store, claimed *bool, healthy func()) error {
	if s.cluster != p.cluster {
		return fmt.Errorf("publisher of cluster %s was given the store of %s", p.cluster, s.cluster)
	}
	if err := p.claim(ctx, s, *claimed); err != nil {
		return err
	}
	*claimed = true
	if err := p.takeStock(ctx, s); err != nil {
		return err
	}
	p.succeeded()
	ticker := time.NewTicker(p.beat)
	defer ticker.Stop()
	proven := false // everything desired was in the store once in this session; before that there is no heartbeat
	for {
		complete, err := p.publish(ctx, s, func() error { return p.tick(ctx, s, ticker, proven) })
		if err != nil {
			return err
		}
		if complete && !proven {
			if err := p.heartbeat(ctx, s); err != nil {
				return err
			}
			proven = true
			healthy()
			p.log.Info("published", "cluster", p.cluster, "records", len(p.actual))
		}
		select {
		case <-p.wake:
		case <-ticker.C:
			if err := p.onTick(ctx, s, proven); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish writes all differences, a transaction at a time, and calls between after each. complete tells that there is a
// desired set and that the store holds it.
func (p *Publisher) publish(ctx context.Context, s *Store, between func() error) (complete bool, err error) {
	work, complete := p.takeWork()
	for len(work) > 0 {
		n := cut(work)
		if err := p.write(ctx, s, work[:n]); err != nil {
			return false, err
		}
		work = work[n:]
		p.succeeded()
		if err := between(); err != nil {
			return false, err
		}
	}
	return complete, nil
}

// tick keeps the heartbeat going while much is written.
func (p *Publisher) tick(ctx context.Context, s *Store, ticker *time.Ticker, proven bool) error {
	select {
	case <-ticker.C:
		return p.onTick(ctx, s, proven)
	default:
		return nil
	}
}

func (p *Publisher) onTick(ctx context.Context, s *Store, proven bool) error {
	if proven {
		return p.checkAndBeat(ctx, s)
	}
	if _, err := s.get(ctx, prefixOf(p.cluster)+keyLeader); err != nil {
		return fmt.Errorf("look after the shared etcd: %w", err)
	}
	p.succeeded()
	return nil
}

func (p *Publisher) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Reachable, p.status.LastError, p.status.LastSuccess = true, nil, time.Now()
	p.status.Published = len(p.actual)
	p.countPending()
}

// countPending brings the status up to date; the lock is held. A dirty key may turn out not to differ.
func (p *Publisher) countPending() {
	p.status.Pending = len(p.dirty) + p.writing
	p.status.Synced = p.status.Reachable && p.desired != nil && p.status.Pending == 0
}

func (p *Publisher) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Reachable, p.status.Synced, p.status.LastError = false, false, err
}

// takeStock lists the prefix and marks everything for comparison. What is no record of this version goes too, unless it
// is desired: an older version may have left it.
func (p *Publisher) takeStock(ctx context.Context, s *Store) error {
	prefix := prefixOf(p.cluster)
	p.actual, p.canary = record.Set{}, false
	_, err := s.list(ctx, prefix, func(found kv) {
		switch rest := found.key[len(prefix):]; rest {
		case keyLeader:
		case keySynced:
			p.canary = true
		case keyHeartbeat:
			if t, err := time.Parse(time.RFC3339Nano, string(found.value)); err == nil && t.After(p.lastBeat) {
				p.lastBeat = t
			}
		default:
			p.actual[p.cluster+"/"+rest] = found.value
		}
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty, p.writing = map[string]bool{}, 0
	for key := range maps.Keys(p.actual) {
		p.dirty[key] = true
	}
	for key := range maps.Keys(p.desired) {
		p.dirty[key] = true
	}
	return nil
}
