// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/time/rate"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
)

// Event is one record's change. Key is a record key (without the store's prefix), Value nil means that it is gone.
type Event struct {
	Cluster     string
	Key         string
	Value       []byte
	ModRevision int64
}

// ClusterState tells how far what was delivered of a cluster can be trusted.
type ClusterState struct {
	// Synced: what was delivered was complete at Revision and followed the store since. It stays true while the cluster
	// is stale: nothing was taken away.
	Synced   bool
	Revision int64

	// Stale: no heartbeat for a while, or the store lost or forgot the cluster. Records are kept; Why says more.
	Stale bool
	Why   string

	// Heartbeat is the newest time the cluster wrote, by its own clock. Staleness does not depend on that clock, but for a
	// cluster that no heartbeat was seen of yet: then one that is old by our clock counts as old.
	Heartbeat time.Time
}

// Handler takes what a Watcher found. Its methods are called one at a time, from Run's goroutine.
type Handler interface {
	// Records delivers changes of one cluster, in the store's order. A cluster's first batches hold all its records and
	// are followed by Cluster with Synced. A cluster is delivered only once its canary exists.
	Records(cluster string, events []Event)

	// Cluster delivers each change of a cluster's state, each new heartbeat included.
	Cluster(cluster string, state ClusterState)
}

// WatchStatus tells how watching goes.
type WatchStatus struct {
	Reachable   bool      // the last exchange with the store succeeded
	Revision    int64     // newest revision of the store seen
	Clusters    int       // clusters known
	Records     int       // records known, of all clusters
	LastSuccess time.Time // when the store last answered
	LastError   error     // of the last failure, nil once an exchange succeeded again
}

// StaleAfter is how long a cluster may miss heartbeats.
const StaleAfter = 4 * HeartbeatInterval

// pingInterval is how often the store is asked whether it is there and still the same. A watch alone doesn't tell: on a
// store that was restored it waits in silence until the old revision is reached again.
const pingInterval = 5 * time.Second

// logEvery is how often a cluster's doubts are logged at most.
const logEvery = 10 * time.Second

// maxEvents bounds one call of Handler.Records.
const maxEvents = 1000

// Watcher follows every cluster's records, this cluster's own among them.
type Watcher struct {
	handler    Handler
	log        *slog.Logger
	seed       maphash.Seed
	staleAfter time.Duration
	ping       time.Duration
	wake       wakeup.Signal
	list       func(ctx context.Context, s *Store, prefix string, each func(kv)) (int64, error) // of one cluster

	mu     sync.Mutex
	status WatchStatus
	forget []string

	// Owned by Run's goroutine.
	clusters map[string]*clusterView
	revision int64 // everything up to here was taken
	resumes  bool  // a watch may go on from revision; else everything must be listed
	lists    int   // how often everything was listed
	lister   *lister
}

// clusterView is what the Watcher knows and has delivered of one cluster.
type clusterView struct {
	known     map[string]uint64 // record key → hash of the delivered value
	delivered ClusterState
	following bool  // events are delivered; else they wait for a list that can be believed
	revision  int64 // events up to here are in known already
	fence     int64 // revision of the newest fence
	heartbeat time.Time
	seen      time.Time // when, by our clock, the heartbeat last grew
	relist    relist
	logged    rate.Sometimes
}

// NewWatcher makes a Watcher. What it has delivered it remembers across calls of Run.
func NewWatcher(h Handler, log *slog.Logger) *Watcher {
	return &Watcher{
		handler:    h,
		log:        cmp.Or(log, slog.Default()),
		seed:       maphash.MakeSeed(),
		staleAfter: StaleAfter,
		ping:       pingInterval,
		wake:       wakeup.New(),
		list: func(ctx context.Context, s *Store, prefix string, each func(kv)) (int64, error) {
			return s.list(ctx, prefix, each)
		},
		clusters: map[string]*clusterView{},
	}
}

// Status tells how watching goes.
func (w *Watcher) Status() WatchStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Forget gives up a cluster because an administrator removed it: its records are delivered as deleted and its state is
// dropped. If the cluster is alive it comes back with its next heartbeat, as new. Forget returns at once; the handler is
// called by Run.
func (w *Watcher) Forget(cluster string) {
	w.mu.Lock()
	w.forget = append(w.forget, cluster)
	w.mu.Unlock()
	w.wake.Raise()
}

// Run watches until ctx ends, and returns ctx's error. All failures are retried. Run may be called again, with another
// Store, once it has returned.
func (w *Watcher) Run(ctx context.Context, s *Store) error {
	retry := newBackoff(200*time.Millisecond, 10*time.Second)
	for {
		err := w.session(ctx, s, retry.reset)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.failed(err)
		w.log.Warn("watching the shared etcd was interrupted", "error", err, "resumes", w.resumes)
		w.expire(time.Now())
		if err := retry.wait(ctx); err != nil {
			return err
		}
	}
}

// errReset says that the store is not the one we knew: its revision went back.
var errReset = errors.New("the store's revision went back: it was wiped or restored")

// session follows the store from where the last one stopped, or else from a list of everything.
func (w *Watcher) session(ctx context.Context, s *Store, healthy func()) error {
	if err := w.begin(ctx, s); err != nil {
		return err
	}
	w.succeeded()
	healthy()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.lister = newLister(ctx, s, w.list)
	defer w.stopLists(cancel)
	w.startLists() // that an earlier session wanted
	watch := s.client.Watch(clientv3.WithRequireLeader(ctx), Root, clientv3.WithPrefix(), clientv3.WithRev(w.revision+1))
	ticker := time.NewTicker(w.ping)
	defer ticker.Stop()
	for {
		select {
		case resp, ok := <-watch:
			if !ok {
				return errors.Join(errors.New("the watch ended"), ctx.Err())
			}
			if err := resp.Err(); err != nil {
				w.resumes = w.resumes && resp.CompactRevision == 0
				return fmt.Errorf("watch %s: %w", Root, err)
			}
			w.take(resp.Events)
			w.revision = max(w.revision, resp.Header.Revision)
			w.succeeded()
		case <-ticker.C:
			if err := w.look(ctx, s); err != nil {
				return err
			}
			w.expire(time.Now())
		case f := <-w.lister.results:
			if err := w.takeResult(ctx, s, f); err != nil {
				return err
			}
		case <-w.lister.timer.C:
			w.startLists()
		case <-w.wake: // something to forget
		case <-ctx.Done():
			return ctx.Err()
		}
		w.forgetAsked()
	}
}

// begin finds a revision to watch from. Even a store that was replaced unnoticed by one that is further on shows itself:
// the chain of each living cluster's writes is broken there.
func (w *Watcher) begin(ctx context.Context, s *Store) error {
	if w.resumes {
		err := w.sameStore(ctx, s)
		if err == nil || !errors.Is(err, errReset) {
			return err
		}
		w.log.Warn("the shared etcd is not as it was, listing everything", "error", err)
	}
	revision, err := w.listAll(ctx, s)
	if err != nil {
		return err
	}
	w.revision, w.resumes = revision, true
	w.lists++
	return nil
}

// look asks the store for its revision. A store that doesn't answer doesn't end the session: the watch goes on where it
// was when the store is back.
func (w *Watcher) look(ctx context.Context, s *Store) error {
	err := w.sameStore(ctx, s)
	if errors.Is(err, errReset) {
		return err
	}
	if err != nil {
		w.failed(err)
		return nil
	}
	w.succeeded()
	return nil
}

// sameStore fails with errReset if the store's revision is smaller than what we have seen of it.
func (w *Watcher) sameStore(ctx context.Context, s *Store) error {
	resp, err := s.get(ctx, prefixOf(s.cluster)+keyHeartbeat) // one key: a range would cost the store a walk over it
	if err != nil {
		return fmt.Errorf("look after the shared etcd: %w", err)
	}
	if resp.Header.Revision < w.revision {
		return fmt.Errorf("revision %d after %d: %w", resp.Header.Revision, w.revision, errReset)
	}
	return nil
}

// listAll lists all clusters and takes each one's list. A cluster that the store doesn't mention is kept as stale.
func (w *Watcher) listAll(ctx context.Context, s *Store) (int64, error) {
	listed := map[string]*listing{}
	revision, err := s.list(ctx, Root, func(found kv) {
		cluster, rest, ok := split(found.key)
		if !ok {
			return
		}
		l := listed[cluster]
		if l == nil {
			l = &listing{}
			listed[cluster] = l
		}
		l.add(cluster, rest, found)
	})
	if err != nil {
		return 0, err
	}
	for cluster := range w.clusters {
		if listed[cluster] == nil {
			listed[cluster] = &listing{}
		}
	}
	for _, cluster := range slices.Sorted(maps.Keys(listed)) {
		w.takeList(cluster, listed[cluster], revision)
	}
	return revision, nil
}

// split takes a store key apart. Keys that no cluster could have written are none of ours.
func split(key string) (cluster, rest string, ok bool) {
	cluster, rest, ok = strings.Cut(strings.TrimPrefix(key, Root), "/")
	return cluster, rest, ok && record.ValidClusterName(cluster)
}

func (w *Watcher) view(cluster string) *clusterView {
	v := w.clusters[cluster]
	if v == nil {
		v = &clusterView{known: map[string]uint64{}, seen: time.Now(), logged: rate.Sometimes{Interval: logEvery}}
		w.clusters[cluster] = v
	}
	return v
}

func (w *Watcher) forgetAsked() {
	w.mu.Lock()
	names := w.forget
	w.forget = nil
	w.mu.Unlock()
	for _, cluster := range names {
		v := w.clusters[cluster]
		if v == nil {
			continue
		}
		delete(w.clusters, cluster)
		var events []Event
		for _, key := range slices.Sorted(maps.Keys(v.known)) {
			events = append(events, Event{Cluster: cluster, Key: key, ModRevision: w.revision})
		}
		w.deliver(cluster, events)
	}
	if len(names) > 0 {
		w.succeeded()
	}
}

func (w *Watcher) deliver(cluster string, events []Event) {
	for chunk := range slices.Chunk(events, maxEvents) {
		w.handler.Records(cluster, chunk)
	}
}

func (w *Watcher) succeeded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Reachable, w.status.LastError, w.status.LastSuccess = true, nil, time.Now()
	w.status.Revision, w.status.Clusters, w.status.Records = w.revision, len(w.clusters), 0
	for _, v := range w.clusters {
		w.status.Records += len(v.known)
	}
}

func (w *Watcher) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Reachable, w.status.LastError = false, err
}
