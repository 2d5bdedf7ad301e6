// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

func policy(cluster, name string) *recordv1.Record {
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
		Kind: "NetworkPolicy", Namespace: "shop", Name: name, SpecJson: []byte("{}"),
	}}}
}

func (s *scene) wantLocal() {
	s.t.Helper()
	st := s.agents.states["east"]
	if !st.GetLocal() || !st.GetSynced() || st.GetStale() || !slices.Equal(st.GetSyncedKinds(), record.Kinds()) {
		s.t.Errorf("the own cluster is %v", st)
	}
	for name, other := range s.agents.states {
		if name != "east" && other.GetLocal() {
			s.t.Errorf("%s is local too", name)
		}
	}
}

// Whatever becomes of other clusters, agents know which one is theirs and that its records are complete.
func TestOwnClusterIsLocalAndComplete(t *testing.T) {
	s := newScene(t)
	s.wantLocal()
	s.accept(west, meshCluster("twin", 2, 0, "10.4.0.0/16"), meshCluster("east", 9, 0, "10.9.0.0/16"))
	s.wantLocal()
	s.put("east", endpoint("east", "x", "10.9.0.1", 9<<16|256))
	s.intake.Cluster("east", store.ClusterState{Stale: true})
	s.wantLocal()
	s.intake.Changed(nil, export.Delta{})
	if len(s.agents.states) > 0 {
		t.Errorf("a cluster of no mesh announces %v", s.agents.states)
	}
}

func TestClusterThatIsNotSyncedBlocksNoOther(t *testing.T) {
	s := newScene(t)
	s.accept(west, meshCluster("refused", 1, 0, "10.3.0.0/16"), meshCluster("ahead", 4, 0, "10.4.0.0/16"))
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.put("refused", endpoint("refused", "a", "10.3.0.1", 3<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.intake.Cluster("refused", store.ClusterState{Synced: true})
	want := "east synced=true stale=false, ahead synced=false stale=true, refused synced=false stale=true, west synced=true stale=false"
	if s.agents.clusters != want {
		t.Errorf("clusters: %s, want %s", s.agents.clusters, want)
	}
	for _, name := range []string{"refused", "ahead"} {
		if kinds := s.agents.states[name].GetSyncedKinds(); len(kinds) > 0 {
			t.Errorf("%s: %v", name, kinds)
		}
	}
}

// An operator that restarts while a cluster is suspended knows nothing of it, and must not say that there is nothing.
func TestSuspendedClusterIsAsCompleteAsItWas(t *testing.T) {
	frozen := west
	frozen.Spec.Suspend = true

	s := newScene(t)
	s.accept(frozen)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	if st := s.agents.states["west"]; st.GetSynced() || len(st.GetSyncedKinds()) > 0 {
		t.Errorf("after a restart: %v", st)
	}
	s.accept(west)
	if st := s.agents.states["west"]; !st.GetSynced() {
		t.Errorf("once it is resumed: %v", st)
	}
	s.wantKeys("west/endpoints/shop/a")
	s.accept(frozen)
	if st := s.agents.states["west"]; !st.GetSynced() {
		t.Errorf("suspended while complete: %v", st)
	}
}

// slow is a hub that shows what agents know in the middle of a large cluster's judgement.
type slow struct {
	*agents
	seen []string
}

func (s *slow) Apply(changes []*relayv1.Change) error {
	if err := s.agents.Apply(changes); err != nil {
		return err
	}
	s.seen = append(s.seen, record.Kind(changes[0].GetKey())+" while complete: "+strings.Join(s.states["west"].GetSyncedKinds(), " "))
	return nil
}

func TestKindsBecomeCompleteOneByOne(t *testing.T) {
	s := newScene(t)
	hub := &slow{agents: s.agents}
	s.intake.hub, s.intake.slice = hub, 2
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256), endpoint("west", "b", "10.2.0.2", 2<<16|256), endpoint("west", "c", "10.2.0.3", 2<<16|256),
		node("west", "n1", "192.0.2.1", 1))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.accept(west)
	want := []string{
		"nodes while complete: ",                       // the lock was not given up before
		"endpoints while complete: cluster identities", // that nodes are complete comes with the first endpoints
		"endpoints while complete: cluster identities nodes",
	}
	if diff := cmp.Diff(want, hub.seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !s.agents.states["west"].GetSynced() {
		t.Errorf("west is %v", s.agents.states["west"])
	}
}

func TestPoliciesOfOthersGoToNoAgent(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", policy("west", "p"), policy("west", "q"), endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.wantKeys("west/endpoints/shop/a")
	if n := s.intake.Overview().Remotes["west"].Records[record.KindPolicy]; n != 2 {
		t.Errorf("%d policies are counted", n)
	}
	if !slices.Contains(s.agents.states["west"].GetSyncedKinds(), record.KindPolicy) {
		t.Error("agents don't know that there is no policy for them")
	}
	bad := policy("west", "r")
	bad.GetPolicy().SpecJson = []byte("not JSON")
	s.put("west", bad)
	s.wantRejected("west", "west/policies/NetworkPolicy/shop/r InvalidPolicy")
	s.gone("west", "west/policies/NetworkPolicy/shop/p")
	if n := s.intake.Overview().Remotes["west"].Records[record.KindPolicy]; n != 1 {
		t.Errorf("%d policies are counted", n)
	}
}

// A record that changes, and a heartbeat, say nothing new of the clusters.
func TestStatesAreAnnouncedWhenTheyChange(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	before := s.agents.announced
	mesh := s.intake.mesh
	for i := range 10 {
		s.put("west", endpoint("west", "a", "10.2.0.1", uint32(2<<16|256+i)))
		s.intake.Cluster("west", store.ClusterState{Synced: true, Revision: int64(i)})
		s.intake.Changed(mesh, export.Delta{Local: []export.Change{{Key: "east/endpoints/shop/b", Record: endpoint("east", "b", "10.1.0.1", 1<<16|256)}}})
	}
	if s.agents.announced != before {
		t.Errorf("announced %d times", s.agents.announced-before)
	}
	s.intake.Cluster("west", store.ClusterState{Synced: true, Stale: true})
	if s.agents.announced != before+1 {
		t.Error("not announced that west is stale")
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	const bad = maxRefusals + 500
	key := func(i int) string { return "west/endpoints/shop/" + podName(i) }
	for i := range bad {
		s.put("west", endpoint("west", podName(i), "192.0.2.1", 2<<16|256))
	}
	r := s.intake.remotes["west"]
	if r.refused.count != bad || r.refused.newest.Len() != maxRefusals {
		t.Errorf("%d refused, %d remembered", r.refused.count, r.refused.newest.Len())
	}
	old := r.kinds[record.KindEndpoint][key(3)].refused
	if old == nil || old.message != "" {
		t.Errorf("the oldest refusal is %v", old)
	}
	// Neither an old nor a new refusal is news when it comes again.
	before := s.intake.Overview().Remotes["west"].Rejections
	s.put("west", endpoint("west", podName(3), "192.0.2.1", 2<<16|256), endpoint("west", podName(bad-5), "192.0.2.1", 2<<16|256))
	if diff := cmp.Diff(before, s.intake.Overview().Remotes["west"].Rejections); diff != "" {
		t.Errorf("the same refusals are news (-before +after):\n%s", diff)
	}
	// Records heal or go, remembered or not.
	s.put("west", endpoint("west", podName(4), "10.2.0.1", 2<<16|256), endpoint("west", podName(bad-1), "10.2.0.2", 2<<16|256))
	s.gone("west", key(5), key(bad-2))
	o := s.intake.Overview().Remotes["west"]
	if o.Rejected != bad-4 || len(o.Rejections) != maxRejections || o.Rejections[0].Key != key(bad-3) {
		t.Errorf("%d refused, the newest %v", o.Rejected, o.Rejections[0])
	}
}

func podName(i int) string { return fmt.Sprintf("p%04d", i) }

func TestOversizedRecordIsNotKept(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Records("west", []store.Event{{Cluster: "west", Key: "west/endpoints/shop/a", Value: make([]byte, 10*record.MaxSize)}})
	s.wantKeys("west/endpoints/shop/a")
	s.wantRejected("west", "TooLarge: record has 2621440 bytes")
	if n := len(s.intake.remotes["west"].kinds[record.KindEndpoint]["west/endpoints/shop/a"].raw); n > 0 {
		t.Errorf("%d bytes are kept", n)
	}
	s.accept(meshCluster("west", 2, 0, "10.2.0.0/17"))
	s.wantRejected("west", "TooLarge: record has 2621440 bytes")
}

// What a cluster leaves behind when it is forgotten is nothing.
func TestForgottenClusterLeavesNothing(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", node("west", "n1", "192.0.2.1", 1), endpoint("west", "a", "10.2.0.1", 2<<16|256), endpoint("west", "bad", "10.1.0.1", 2<<16|256))
	s.accept()
	s.gone("west", "west/nodes/n1", "west/endpoints/shop/a", "west/endpoints/shop/bad") // as the watcher does then
	if len(s.intake.shared.addresses.of) > 0 || len(s.intake.shared.addresses.blocks) > 0 || len(s.intake.shared.keys.of) > 0 {
		t.Errorf("left: %v", s.intake.shared.addresses.of)
	}
	for kind, records := range s.intake.remote("west").kinds {
		if len(records) > 0 {
			t.Errorf("left of %s: %v", kind, records)
		}
	}
	s.wantKeys([]string(nil)...)
}
