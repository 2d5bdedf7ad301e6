// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package relay carries records from a cluster's operator to its node agents, and the agents' reports back.
//
// The operator keeps one Hub: the merged state of all clusters, by key. Applied changes get increasing revisions. A
// Server streams the hub to each agent: a snapshot, or what changed since the agent's resume point, then deltas. There is
// no queue per agent: each stream remembers one revision and takes what changed since from a shared, bounded history of
// keys, so a slow agent gets the newest value of each key, or a fresh snapshot, and costs neither memory nor anybody
// else's time. The agent runs a Client, and may keep what it received in a State, which knows what a snapshot sweeps.
package relay

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// DefaultHistory is how many changes a Hub remembers for agents that resume or fall behind.
const DefaultHistory = 1 << 16

// Hub is the merged state of all clusters. Its methods may be called from any goroutine.
type Hub struct {
	epoch string

	mu       sync.RWMutex
	entries  map[string]*entry
	gone     map[string]*entry // deletions that history still covers
	history  *history
	clusters clusterStates
	changed  chan struct{} // closed and replaced on every change
}

// entry is the newest change of one key, encoded once for all subscribers. It is never changed, only replaced.
type entry struct {
	key      string
	revision uint64
	encoded  []byte // the changes field of a Batch with this Change in it, tag and length included
}

type clusterStates struct {
	version uint64
	states  []*relayv1.ClusterState
}

// NewHub makes an empty hub with an epoch of its own, which remembers that many changes (DefaultHistory if not positive).
func NewHub(remember int) *Hub {
	if remember <= 0 {
		remember = DefaultHistory
	}
	return &Hub{
		epoch:   rand.Text(),
		entries: map[string]*entry{},
		gone:    map[string]*entry{},
		history: newHistory(remember),
		changed: make(chan struct{}),
	}
}

// Apply takes changes, in order. A change that leaves a record as it was is dropped. It fails, before anything was
// applied, if a record can't be encoded.
func (h *Hub) Apply(changes []*relayv1.Change) error {
	encoded := make([][]byte, len(changes))
	for i, c := range changes {
		var err error
		if encoded[i], err = encodeChange(c); err != nil {
			return fmt.Errorf("encode change of %s: %w", c.GetKey(), err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.history.newest
	for i, c := range changes {
		h.applyOne(c.GetKey(), c.GetRecord() == nil, encoded[i])
	}
	if h.history.newest != before {
		h.wake()
	}
	return nil
}

func (h *Hub) applyOne(key string, remove bool, encoded []byte) {
	have, exists := h.entries[key]
	if remove && !exists || exists && bytes.Equal(have.encoded, encoded) {
		return
	}
	revision, dropped := h.history.push(key)
	if g, ok := h.gone[dropped]; ok && g.revision == revision {
		delete(h.gone, dropped)
	}
	e := &entry{key: key, revision: h.history.newest, encoded: encoded}
	if remove {
		delete(h.entries, key)
		h.gone[key] = e
	} else {
		delete(h.gone, key)
		h.entries[key] = e
	}
}

// SetClusters replaces the clusters' states. Apply a cluster's records before calling it synced: from then on agents
// take a record that the hub doesn't hold for gone.
func (h *Hub) SetClusters(states []*relayv1.ClusterState) {
	sorted := make([]*relayv1.ClusterState, len(states))
	for i, s := range states {
		sorted[i] = proto.CloneOf(s)
	}
	slices.SortFunc(sorted, func(a, b *relayv1.ClusterState) int { return cmp.Compare(a.GetName(), b.GetName()) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.EqualFunc(sorted, h.clusters.states, func(a, b *relayv1.ClusterState) bool { return proto.Equal(a, b) }) {
		return
	}
	h.clusters = clusterStates{version: h.clusters.version + 1, states: sorted}
	h.wake()
}

// At is the hub's newest resume point: what an agent that is up to date has applied.
func (h *Hub) At() *relayv1.ResumePoint {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.point(h.history.newest)
}

// Len is the number of records held.
func (h *Hub) Len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.entries)
}

// Keys lists the keys held, sorted.
func (h *Hub) Keys() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Sorted(maps.Keys(h.entries))
}

func (h *Hub) point(revision uint64) *relayv1.ResumePoint {
	return &relayv1.ResumePoint{Epoch: h.epoch, Revision: revision}
}

// wake tells every stream that there is news. The lock is held.
func (h *Hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// cursor is how far one stream got.
type cursor struct {
	started  bool // something was sent, so revision counts
	revision uint64
	clusters uint64 // version of the cluster states
}

// resume places a new stream: where the agent left off if this hub still knows what changed since, else at the start.
func (h *Hub) resume(p *relayv1.ResumePoint) cursor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if p.GetEpoch() != h.epoch || !h.history.covers(p.GetRevision()) {
		return cursor{}
	}
	return cursor{started: true, revision: p.GetRevision()}
}

// view is what a stream must send to be up to date.
type view struct {
	snapshot bool
	entries  []*entry // by revision, unless a snapshot
	clusters []*relayv1.ClusterState
	news     bool // clusters are newer than the stream's
	next     cursor
	changed  <-chan struct{} // closed when there is more
}

// since collects what a stream at a cursor lacks. Only the pointers are copied, so a snapshot holds the lock briefly.
func (h *Hub) since(c cursor) view {
	h.mu.RLock()
	defer h.mu.RUnlock()
	v := view{
		clusters: h.clusters.states,
		news:     h.clusters.version != c.clusters,
		next:     cursor{started: true, revision: h.history.newest, clusters: h.clusters.version},
		changed:  h.changed,
	}
	if !c.started || !h.history.covers(c.revision) {
		v.snapshot, v.news = true, true
		v.entries = slices.AppendSeq(make([]*entry, 0, len(h.entries)), maps.Values(h.entries))
		return v
	}
	for r := c.revision + 1; r <= h.history.newest; r++ {
		if e := h.newest(h.history.key(r)); e.revision == r {
			v.entries = append(v.entries, e)
		}
	}
	return v
}

func (h *Hub) newest(key string) *entry {
	if e, ok := h.entries[key]; ok {
		return e
	}
	return h.gone[key]
}
