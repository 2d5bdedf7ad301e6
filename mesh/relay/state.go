// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// State is what an agent knows of a stream beside the records themselves, which whoever calls Apply keeps: where the stream
// is, how far each cluster's records are complete, and which records a later sweep may remove. It is plain data for one
// goroutine; Apply is the one way to change it.
//
// A record is gone when a delta says so, or when a whole snapshot didn't mention it and its cluster is complete for its
// kind. If the cluster becomes complete only after the snapshot (its operator had just started), what was not mentioned
// until then goes at that moment. A cluster that never becomes complete loses nothing.
type State struct {
	clusters map[string]*relayv1.ClusterState
	resume   *relayv1.ResumePoint

	inSnapshot bool
	complete   bool // a snapshot ended, so what is unconfirmed may be judged
	heard      bool // clusters' states came with a batch
	listed     bool // and since the newest snapshot began
	// unconfirmed is held from before the newest snapshot and was not mentioned since it began.
	unconfirmed map[scope]map[string]struct{}
}

// scope is what completeness is said of.
type scope struct{ cluster, kind string }

func scopeOf(key string) scope { return scope{record.ClusterOf(key), record.Kind(key)} }

// NewState makes an empty State.
func NewState() *State {
	return &State{clusters: map[string]*relayv1.ClusterState{}, unconfirmed: map[scope]map[string]struct{}{}}
}

// RestoreState makes a State from what was saved of one: its Clusters and Saved. That clusters were complete is not
// believed: it was said of an earlier moment than the next batch's.
func RestoreState(clusters []*relayv1.ClusterState, resume *relayv1.ResumePoint) *State {
	s := NewState()
	s.setClusters(clusters)
	s.distrustClusters()
	s.resume = proto.CloneOf(resume)
	s.complete = resume != nil
	return s
}

// Apply takes the next batch of a stream and gives the changes to make, each key once: the batch's, then what the sweep
// removes. Some may turn out to change nothing. held gives the keys of all records; it is used where a snapshot begins.
func (s *State) Apply(b *relayv1.Batch, held iter.Seq[string]) []*relayv1.Change {
	if b.GetSnapshotStart() {
		s.begin(held)
	}
	changes := newest(b.GetChanges())
	for _, c := range changes {
		s.confirm(c.GetKey())
	}
	if len(b.GetClusters()) > 0 {
		s.setClusters(b.GetClusters())
		s.heard, s.listed = true, true
	}
	if b.GetSnapshotEnd() {
		s.inSnapshot, s.complete = false, true
	}
	if s.complete && (b.GetSnapshotEnd() || len(b.GetClusters()) > 0) {
		changes = s.sweep(changes)
	}
	if b.GetAt() != nil && !s.inSnapshot {
		s.resume = proto.CloneOf(b.GetAt())
	}
	return changes
}

func (s *State) begin(held iter.Seq[string]) {
	s.inSnapshot, s.complete, s.listed = true, false, false
	s.distrustClusters()
	s.unconfirmed = map[scope]map[string]struct{}{}
	for key := range held {
		at := scopeOf(key)
		if s.unconfirmed[at] == nil {
			s.unconfirmed[at] = map[string]struct{}{}
		}
		s.unconfirmed[at][key] = struct{}{}
	}
}

func (s *State) confirm(key string) {
	if len(s.unconfirmed) == 0 {
		return
	}
	at := scopeOf(key)
	delete(s.unconfirmed[at], key)
	if len(s.unconfirmed[at]) == 0 {
		delete(s.unconfirmed, at)
	}
}

// newest drops all but the last change of each key. Relays send each key once, so this usually only looks.
func newest(changes []*relayv1.Change) []*relayv1.Change {
	if len(changes) < 2 {
		return slices.Clip(changes)
	}
	last := make(map[string]int, len(changes))
	for i, c := range changes {
		last[c.GetKey()] = i
	}
	if len(last) == len(changes) {
		return slices.Clip(changes)
	}
	var out []*relayv1.Change
	for i, c := range changes {
		if last[c.GetKey()] == i {
			out = append(out, c)
		}
	}
	return out
}

// sweep removes what the snapshot didn't mention where nothing can be missing from it.
func (s *State) sweep(changes []*relayv1.Change) []*relayv1.Change {
	for at, keys := range s.unconfirmed {
		if !s.Complete(at.cluster, at.kind) && !s.forgotten(at.cluster) {
			continue
		}
		delete(s.unconfirmed, at)
		for key := range keys {
			changes = append(changes, &relayv1.Change{Key: key})
		}
	}
	return changes
}

// forgotten says that the relay has given a cluster up: it names every cluster that has a MeshCluster, whatever is known of
// it, and itself as the local one (older relays don't, and are not taken at their word).
func (s *State) forgotten(cluster string) bool {
	return s.listed && s.Local() != "" && s.clusters[cluster] == nil
}

func (s *State) setClusters(states []*relayv1.ClusterState) {
	s.clusters = make(map[string]*relayv1.ClusterState, len(states))
	for _, c := range states {
		s.clusters[c.GetName()] = c
	}
}

// distrustClusters forgets that clusters were complete: what another relay process said of its records says nothing of
// the new one's, which may just have started and know no cluster yet.
func (s *State) distrustClusters() {
	for name, c := range s.clusters {
		c = proto.CloneOf(c)
		c.Synced, c.SyncedKinds = false, nil
		s.clusters[name] = c
	}
}

// Resume is where a new stream may go on, as long as this State and the records live. It is nil (send everything) before
// the first snapshot and while one is unfinished.
func (s *State) Resume() *relayv1.ResumePoint {
	if s.inSnapshot {
		return nil
	}
	return proto.CloneOf(s.resume)
}

// Saved is where a new stream may go on from what is saved now. It is also nil while something is held that only a later
// sweep can judge: that knowledge would be lost with this State.
func (s *State) Saved() *relayv1.ResumePoint {
	if len(s.unconfirmed) > 0 {
		return nil
	}
	return s.Resume()
}

// Applied is the newest batch's place in the stream, nil before the first snapshot's end. It is what a report names.
func (s *State) Applied() *relayv1.ResumePoint { return proto.CloneOf(s.resume) }

// Whole reports whether a whole snapshot was received since the last one began.
func (s *State) Whole() bool { return s.complete }

// Current reports whether the records are those of a whole snapshot and the relay has said, since this State was made, how far
// they are complete: a stream that was resumed has caught up then.
func (s *State) Current() bool { return s.complete && s.heard }

// Complete reports whether every record of a kind that a cluster has is held, so that what isn't held doesn't exist.
func (s *State) Complete(cluster, kind string) bool {
	c := s.clusters[cluster]
	if !s.complete || c == nil {
		return false
	}
	if c.GetSynced() && len(c.GetSyncedKinds()) == 0 {
		return true // a relay that is older than synced_kinds
	}
	return slices.Contains(c.GetSyncedKinds(), kind)
}

// Local is the relay's own cluster, empty while no relay said it.
func (s *State) Local() string {
	for name, c := range s.clusters {
		if c.GetLocal() {
			return name
		}
	}
	return ""
}

// Clusters gives what is known of each cluster, in no order.
func (s *State) Clusters() []*relayv1.ClusterState {
	out := make([]*relayv1.ClusterState, 0, len(s.clusters))
	for _, c := range s.clusters {
		out = append(out, c)
	}
	return out
}

// Cluster gives what is known of one cluster, nil if nothing is.
func (s *State) Cluster(name string) *relayv1.ClusterState { return s.clusters[name] }
