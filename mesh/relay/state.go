// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"iter"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// State is what an agent holds of the stream. It is plain data for one goroutine; Apply is the one way to change it.
//
// A record is gone when a delta says so, or when a whole snapshot didn't mention it and its cluster is synced. If the
// cluster becomes synced only after the snapshot (its operator had just started), what was not mentioned until then
// goes at that moment. A cluster that never becomes synced loses nothing.
type State struct {
	records  map[string]*recordv1.Record
	clusters map[string]*relayv1.ClusterState
	resume   *relayv1.ResumePoint

	inSnapshot  bool
	complete    bool            // a snapshot ended, so what is unconfirmed may be judged
	unconfirmed map[string]bool // held from before the newest snapshot and not mentioned since it began
}

// NewState makes an empty State.
func NewState() *State {
	return &State{
		records:     map[string]*recordv1.Record{},
		clusters:    map[string]*relayv1.ClusterState{},
		unconfirmed: map[string]bool{},
	}
}

// RestoreState makes a State from what was saved of one: its All, Clusters and Resume.
func RestoreState(records map[string]*recordv1.Record, clusters []*relayv1.ClusterState, resume *relayv1.ResumePoint) *State {
	s := NewState()
	maps.Copy(s.records, records)
	s.setClusters(clusters)
	s.resume = proto.CloneOf(resume)
	s.complete = resume != nil
	return s
}

// Apply takes the next batch of a stream and gives what it changed, sweeping included, each key at most once. Records
// that were as they are now are not among it, so a snapshot after the operator's restart usually changes nothing.
func (s *State) Apply(b *relayv1.Batch) []*relayv1.Change {
	if b.GetSnapshotStart() {
		s.inSnapshot, s.complete = true, false
		s.distrustClusters()
		s.unconfirmed = make(map[string]bool, len(s.records))
		for key := range s.records {
			s.unconfirmed[key] = true
		}
	}
	diff := map[string]*relayv1.Change{}
	for _, c := range b.GetChanges() {
		s.applyOne(c, diff)
	}
	if len(b.GetClusters()) > 0 {
		s.setClusters(b.GetClusters())
	}
	if b.GetSnapshotEnd() {
		s.inSnapshot, s.complete = false, true
	}
	if s.complete {
		s.sweep(diff)
	}
	if b.GetAt() != nil && !s.inSnapshot {
		s.resume = proto.CloneOf(b.GetAt())
	}
	out := make([]*relayv1.Change, 0, len(diff))
	for _, c := range diff {
		out = append(out, c)
	}
	return out
}

func (s *State) applyOne(c *relayv1.Change, diff map[string]*relayv1.Change) {
	key := c.GetKey()
	delete(s.unconfirmed, key)
	have, held := s.records[key]
	switch {
	case c.GetRecord() == nil && held:
		delete(s.records, key)
		diff[key] = c
	case c.GetRecord() != nil && !(held && proto.Equal(have, c.GetRecord())):
		s.records[key] = c.GetRecord()
		diff[key] = c
	}
}

// sweep removes what the snapshot didn't mention, of synced clusters only.
func (s *State) sweep(diff map[string]*relayv1.Change) {
	for key := range s.unconfirmed {
		if !s.clusters[record.ClusterOf(key)].GetSynced() {
			continue
		}
		delete(s.unconfirmed, key)
		delete(s.records, key)
		diff[key] = &relayv1.Change{Key: key}
	}
}

func (s *State) setClusters(states []*relayv1.ClusterState) {
	s.clusters = make(map[string]*relayv1.ClusterState, len(states))
	for _, c := range states {
		s.clusters[c.GetName()] = c
	}
}

// distrustClusters forgets that clusters were synced: what another relay process said of its records says nothing of the
// new one's, which may just have started and know no cluster yet.
func (s *State) distrustClusters() {
	for name, c := range s.clusters {
		c = proto.CloneOf(c)
		c.Synced = false
		s.clusters[name] = c
	}
}

// Resume is where a new stream may go on. It is nil (send everything) while a snapshot is unfinished, and while something
// is held that only a later sweep can judge: that knowledge would be lost with this State.
func (s *State) Resume() *relayv1.ResumePoint {
	if s.inSnapshot || len(s.unconfirmed) > 0 {
		return nil
	}
	return proto.CloneOf(s.resume)
}

// Applied is the newest batch's place in the stream, nil before the first snapshot's end. It is what a report names.
func (s *State) Applied() *relayv1.ResumePoint { return proto.CloneOf(s.resume) }

// Complete tells whether a whole snapshot was received since the last one began.
func (s *State) Complete() bool { return s.complete }

// Get gives a record, nil if it isn't held. It must not be changed.
func (s *State) Get(key string) *recordv1.Record { return s.records[key] }

// Len is the number of records held.
func (s *State) Len() int { return len(s.records) }

// All goes over the records in no order.
func (s *State) All() iter.Seq2[string, *recordv1.Record] { return maps.All(s.records) }

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
