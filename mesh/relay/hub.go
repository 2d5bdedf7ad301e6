// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package relay carries records from a cluster's operator to its node agents, and the agents' reports back.
//
// The operator keeps one Hub: the merged state of all clusters, by key. Applied changes get increasing revisions. A
// Server streams the hub to each agent: a snapshot, or what changed since the agent's resume point, then deltas. There is
// no queue per agent: a stream remembers how far it got in the hub's changelogs, one for each kind of record, and takes
// the newest values from there, a batch at a time. So a slow agent gets the newest value of each key, or a fresh
// snapshot, and costs neither memory nor anybody else's time. The agent runs a Client, and may keep what it received in a
// State, which knows what a snapshot sweeps.
package relay

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// DefaultHistory is how many removals a Hub remembers for agents that resume or fall behind.
const DefaultHistory = 1 << 16

// Hub is the merged state of all clusters. Its methods may be called from any goroutine.
type Hub struct {
	epoch    string
	remember int
	limits   batchLimits

	mu       sync.RWMutex
	revision uint64            // of the newest change
	entries  map[string]*entry // remembered removals among them
	order    sendOrder
	// forgotten is the newest revision of a removal that is no longer remembered: older streams need a snapshot.
	forgotten uint64
	clusters  clusterStates
	changed   chan struct{} // closed and replaced on every change
}

// entry is the newest change of one key, encoded once for all subscribers. It is never changed, only replaced.
type entry struct {
	key      string
	revision uint64
	removed  bool
	encoded  []byte // the changes field of a Batch with this Change in it, tag and length included
}

type clusterStates struct {
	version uint64
	states  []*relayv1.ClusterState
}

// NewHub makes an empty hub with an epoch of its own, which remembers that many removals (DefaultHistory if not
// positive).
func NewHub(remember int) *Hub {
	if remember <= 0 {
		remember = DefaultHistory
	}
	return &Hub{
		epoch:    rand.Text(),
		remember: remember,
		limits:   batchLimits{changes: maxBatchChanges, bytes: maxBatchBytes},
		entries:  map[string]*entry{},
		order:    newSendOrder(),
		changed:  make(chan struct{}),
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
	before := h.revision
	for i, c := range changes {
		h.applyOne(c.GetKey(), c.GetRecord() == nil, encoded[i])
	}
	if h.revision != before {
		h.wake()
	}
	return nil
}

func (h *Hub) applyOne(key string, remove bool, encoded []byte) {
	have := h.entries[key]
	if remove && have == nil || have != nil && bytes.Equal(have.encoded, encoded) {
		return
	}
	if have != nil {
		key = have.key // one copy of it
		h.order.of(have).drop(have.revision)
	}
	h.revision++
	e := &entry{key: key, revision: h.revision, removed: remove, encoded: encoded}
	h.entries[key] = e
	h.order.of(e).add(e)
	if remove {
		h.forget()
	}
}

// forget drops the oldest removals beyond those to remember.
func (h *Hub) forget() {
	for h.order.removals() > h.remember {
		log := h.order.oldestRemovals()
		oldest := log.slots[0].entry
		log.drop(oldest.revision)
		delete(h.entries, oldest.key)
		h.forgotten = oldest.revision
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
	return h.point(h.revision)
}

// Len is the number of records held.
func (h *Hub) Len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.entries) - h.order.removals()
}

// Keys lists the keys held, sorted.
func (h *Hub) Keys() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	keys := make([]string, 0, len(h.entries))
	for key, e := range h.entries {
		if !e.removed {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (h *Hub) point(revision uint64) *relayv1.ResumePoint {
	return &relayv1.ResumePoint{Epoch: h.epoch, Revision: revision}
}

// wake lets every stream look for news. The lock is held.
func (h *Hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// sendOrder holds the hub's changelogs in the order in which they are sent: records by kind, what is named before what
// names it; then removals the other way round.
type sendOrder struct {
	logs []changelog
	puts int // the first so many logs are of records, the others of removals
}

func newSendOrder() sendOrder {
	kinds := len(record.Kinds()) + 1 // and whatever is of no kind
	return sendOrder{logs: make([]changelog, 2*kinds), puts: kinds}
}

// of gives the changelog that an entry belongs to.
func (o *sendOrder) of(e *entry) *changelog {
	rank := record.Rank(e.key)
	if e.removed {
		return &o.logs[len(o.logs)-1-rank]
	}
	return &o.logs[rank]
}

// removals is the number of removals remembered.
func (o *sendOrder) removals() int {
	n := 0
	for i := range o.logs[o.puts:] {
		n += o.logs[o.puts+i].len()
	}
	return n
}

// oldestRemovals gives the changelog with the oldest removal; there must be one.
func (o *sendOrder) oldestRemovals() *changelog {
	var oldest *changelog
	for i := o.puts; i < len(o.logs); i++ {
		if l := &o.logs[i]; l.len() > 0 && (oldest == nil || l.oldest() < oldest.oldest()) {
			oldest = l
		}
	}
	return oldest
}
