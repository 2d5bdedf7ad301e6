// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"log/slog"
	"time"
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
	// Synced: what was delivered was complete at Revision, and follows the store since. It stays true while the cluster
	// is stale: nothing was taken away.
	Synced   bool
	Revision int64

	// Stale: no heartbeat for a while, or the store lost or forgot the cluster. Records are kept; Why says more.
	Stale bool
	Why   string

	// Heartbeat is the newest time the cluster wrote, by its own clock. Staleness does not depend on that clock.
	Heartbeat time.Time
}

// Handler takes what a Watcher found. Its methods are called one at a time, from Run's goroutine and, for Forget, never
// from another. They must not call the Watcher's Run.
type Handler interface {
	// Records delivers changes of one cluster, the cluster's own store order kept. A cluster's first batches hold all its
	// records and are followed by Cluster with Synced.
	Records(cluster string, events []Event)

	// Cluster delivers each change of a cluster's state, every new heartbeat too.
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

// Watcher follows every cluster's records, this cluster's own among them.
type Watcher struct{}

// NewWatcher makes a Watcher. What it has delivered it remembers across calls of Run.
func NewWatcher(h Handler, log *slog.Logger) *Watcher { return &Watcher{} }

// Run watches until ctx ends, and returns ctx's error. All failures are retried. Run may be called again, with another
// Store, once it has returned.
func (w *Watcher) Run(ctx context.Context, s *Store) error { return nil }

// Forget gives up a cluster because an administrator removed it: its records are delivered as deleted and its state is
// dropped. If the cluster is alive it comes back with its next heartbeat, as new. Forget returns at once; the handler
// is called by Run.
func (w *Watcher) Forget(cluster string) {}

// Status tells how watching goes.
func (w *Watcher) Status() WatchStatus { return WatchStatus{} }
