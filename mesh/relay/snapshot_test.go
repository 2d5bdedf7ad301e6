// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"testing"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// A cluster that shrinks and grows its records while a snapshot is sent makes it skip nobody's.
func TestASnapshotMentionsAllThatItOwes(t *testing.T) {
	h := NewHub(0)
	h.limits = batchLimits{changes: 100, bytes: 1 << 20}
	fill := func() {
		for i := range 600 {
			apply(t, h, put("evil", fmt.Sprintf("e%d", i), 0))
		}
	}
	fill()
	for i := range 200 {
		apply(t, h, put("east", fmt.Sprintf("p%d", i), 0))
	}
	h.SetClusters(synced("east", "evil"))
	agent := newMirror()
	for i := range 200 { // what the agent has from its disk
		agent.Apply(&relayv1.Batch{SnapshotStart: i == 0, SnapshotEnd: i == 199, Changes: []*relayv1.Change{put("east", fmt.Sprintf("p%d", i), 0)}})
	}
	c := &cursor{}
	for range 5 { // 500 of evil's
		b, _ := one(t, h, c)
		agent.Apply(b)
	}
	for i := range 600 {
		apply(t, h, gone("evil", fmt.Sprintf("e%d", i)))
	}
	b, _ := one(t, h, c) // sent 500 > 2*200+64: the rest is owed, and more than a batch
	agent.Apply(b)
	fill()
	for _, b := range rest(t, h, c) {
		agent.Apply(b)
	}
	if got, want := agent.Len(), h.Len(); got != want {
		t.Errorf("the agent is up to date with %d of %d records", got, want)
	}
}

// What is said of clusters at the end of a snapshot is true of what it mentioned: a cluster that became complete meanwhile may
// have records that come after it.
func TestASnapshotsStatesAreOfItsBeginning(t *testing.T) {
	h := NewHub(0)
	h.limits = batchLimits{changes: 100, bytes: 1 << 20}
	flood := func(version int) {
		for i := range 60 {
			apply(t, h, put("evil", fmt.Sprintf("e%d", i), version))
		}
	}
	agent := newMirror()
	agent.Apply(&relayv1.Batch{SnapshotStart: true, SnapshotEnd: true, Changes: []*relayv1.Change{put("east", "p", 0)}})
	flood(0)
	// The operator has just started: east is to come.
	h.SetClusters(append(synced("evil"), &relayv1.ClusterState{Name: "east"}))
	h.limits.changes = 20
	c, ended := &cursor{}, false
	for v := 1; v < 1000 && !ended; v++ {
		b, _ := one(t, h, c)
		ended = b.GetSnapshotEnd()
		if len(c.owed) > 0 && h.entries["east/endpoints/default/p"] == nil {
			apply(t, h, put("east", "p", 0)) // now east comes
			h.SetClusters(synced("east", "evil"))
		}
		agent.Apply(b)
		flood(v)
	}
	if !ended {
		t.Fatal("no snapshot")
	}
	if agent.Get("east/endpoints/default/p") == nil {
		t.Error("a record that the hub holds, and that the agent held, was swept")
	}
	if c.atBegin.states != nil {
		t.Error("the stream keeps the states after the snapshot's end")
	}
}

// A stream waits for long after its snapshot, and the states may be of hundreds of clusters.
func TestAStreamThatWaitsKeepsNoStates(t *testing.T) {
	h := NewHub(0)
	apply(t, h, put("east", "p", 0))
	h.SetClusters(synced("east"))
	c := &cursor{}
	rest(t, h, c)
	if c.snapshot || c.atBegin.states != nil {
		t.Errorf("the stream waits with %+v", *c)
	}
}
