// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// agents is a hub that keeps what agents would have.
type agents struct {
	records   map[string]*recordv1.Record
	states    map[string]*relayv1.ClusterState
	clusters  string
	announced int // how often the clusters' states came
}

func (a *agents) Apply(changes []*relayv1.Change) error {
	for _, c := range changes {
		if c.GetRecord() == nil {
			delete(a.records, c.GetKey())
			continue
		}
		a.records[c.GetKey()] = c.GetRecord()
	}
	return nil
}

func (a *agents) SetClusters(states []*relayv1.ClusterState) {
	var s []string
	a.states = map[string]*relayv1.ClusterState{}
	a.announced++
	for _, c := range states {
		a.states[c.GetName()] = c
		s = append(s, fmt.Sprintf("%s synced=%t stale=%t", c.GetName(), c.GetSynced(), c.GetStale()))
	}
	a.clusters = strings.Join(s, ", ")
}

func (a *agents) keys() []string { return slices.Sorted(maps.Keys(a.records)) }

// scene is an Intake of east that knows west.
type scene struct {
	t      *testing.T
	agents *agents
	intake *Intake
	forgot []string
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, agents: &agents{records: map[string]*recordv1.Record{}}}
	s.intake = NewIntake(s.agents, slog.New(slog.DiscardHandler))
	s.intake.forget = func(c string) { s.forgot = append(s.forgot, c) }
	s.intake.Changed(eastMesh(), export.Delta{})
	return s
}

func (s *scene) accept(clusters ...v1alpha1.MeshCluster) {
	s.intake.SetDecisions(Decide(eastMesh(), clusters))
}

func (s *scene) put(cluster string, recs ...*recordv1.Record) {
	s.t.Helper()
	var events []store.Event
	for _, r := range recs {
		key, err := record.Key(r)
		if err != nil {
			s.t.Fatal(err)
		}
		data, err := record.Marshal(r)
		if err != nil {
			s.t.Fatal(err)
		}
		events = append(events, store.Event{Cluster: cluster, Key: key, Value: data})
	}
	s.intake.Records(cluster, events)
}

func (s *scene) gone(cluster string, keys ...string) {
	for _, k := range keys {
		s.intake.Records(cluster, []store.Event{{Cluster: cluster, Key: k}})
	}
}

func (s *scene) wantKeys(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.agents.keys()); diff != "" {
		s.t.Errorf("agents have (-want +got):\n%s", diff)
	}
}

func (s *scene) wantRejected(cluster string, want ...string) {
	s.t.Helper()
	r := s.intake.Overview().Remotes[cluster]
	if r.Rejected != len(want) {
		s.t.Errorf("%d rejected, want %d: %v", r.Rejected, len(want), r.Rejections)
	}
	for i, w := range want {
		if i < len(r.Rejections) && !strings.Contains(r.Rejections[i].Key+" "+r.Rejections[i].Message, w) {
			s.t.Errorf("rejection %d is %v, want %q", i, r.Rejections[i], w)
		}
	}
}

func endpoint(cluster, name, addr string, identity uint32) *recordv1.Record {
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
		Namespace: "shop", Name: name, Addresses: []string{addr}, Identity: identity, Node: "n1",
	}}}
}

func node(cluster, name, addr string, key byte) *recordv1.Record {
	public := make([]byte, 32)
	public[0] = key
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Node{Node: &recordv1.Node{
		Name: name, Addresses: []string{addr}, WireguardPublicKey: base64.StdEncoding.EncodeToString(public), WireguardPort: 51820,
	}}}
}

var west = meshCluster("west", 2, 0, "10.2.0.0/16")

func TestNothingIsTakenBeforeAMeshClusterAllowsIt(t *testing.T) {
	s := newScene(t)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.wantKeys([]string(nil)...)
	if s.agents.clusters != "east synced=true stale=false" {
		t.Errorf("clusters: %s", s.agents.clusters)
	}
	s.accept(west)
	s.wantKeys("west/endpoints/shop/a")
	if s.agents.clusters != "east synced=true stale=false, west synced=true stale=false" {
		t.Errorf("clusters: %s", s.agents.clusters)
	}
}

func TestRefusedRecordLeavesTheLastGoodOne(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256), endpoint("west", "b", "10.2.0.2", 2<<16|256))
	s.put("west", endpoint("west", "a", "10.1.0.1", 2<<16|256)) // east's address
	s.wantKeys("west/endpoints/shop/a", "west/endpoints/shop/b")
	if got := s.agents.records["west/endpoints/shop/a"].GetEndpoint().GetAddresses()[0]; got != "10.2.0.1" {
		t.Errorf("a is at %s", got)
	}
	s.wantRejected("west", "west/endpoints/shop/a AddressOutsideClaim")

	s.put("west", endpoint("west", "b", "10.2.0.2", 1<<16|256)) // east's identity
	s.wantRejected("west", "west/endpoints/shop/b IdentityOutOfRange", "west/endpoints/shop/a")

	s.put("west", endpoint("west", "a", "10.2.0.9", 2<<16|256)) // healed
	s.wantRejected("west", "west/endpoints/shop/b")
	if got := s.agents.records["west/endpoints/shop/a"].GetEndpoint().GetAddresses()[0]; got != "10.2.0.9" {
		t.Errorf("a is at %s after healing", got)
	}
	s.gone("west", "west/endpoints/shop/b")
	s.wantKeys("west/endpoints/shop/a")
	s.wantRejected("west")
}

func TestGarbageIsRefused(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.intake.Records("west", []store.Event{
		{Cluster: "west", Key: "west/endpoints/shop/a", Value: []byte("\xff\xff garbage")},
		{Cluster: "west", Key: "west/nodes/n1", Value: []byte(strings.Repeat("x", record.MaxSize+1))},
	})
	// A record under another's key.
	data, _ := record.Marshal(endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Records("west", []store.Event{{Cluster: "west", Key: "west/endpoints/shop/b", Value: data}})
	// A record in another's name under the own prefix.
	data, _ = record.Marshal(endpoint("east", "a", "10.2.0.1", 2<<16|256))
	s.intake.Records("west", []store.Event{{Cluster: "west", Key: "west/endpoints/shop/c", Value: data}})
	s.wantKeys([]string(nil)...)
	if r := s.intake.Overview().Remotes["west"]; r.Rejected != 4 {
		t.Errorf("rejected: %v", r.Rejections)
	}
}

func TestNarrowedClaimWithdraws(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256), endpoint("west", "b", "10.2.200.1", 2<<16|256))
	s.accept(meshCluster("west", 2, 0, "10.2.0.0/24"))
	s.wantKeys("west/endpoints/shop/a")
	s.wantRejected("west", "west/endpoints/shop/b")
	s.accept(west)
	s.wantKeys("west/endpoints/shop/a", "west/endpoints/shop/b")
	s.wantRejected("west")
}

func TestSuspendedClusterIsFrozen(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256), endpoint("west", "b", "10.2.0.2", 2<<16|256))
	frozen := west
	frozen.Spec.Suspend = true
	s.accept(frozen)
	s.put("west", endpoint("west", "c", "10.2.0.3", 2<<16|256))
	s.gone("west", "west/endpoints/shop/a")
	s.wantKeys("west/endpoints/shop/a", "west/endpoints/shop/b")
	s.accept(west)
	s.wantKeys("west/endpoints/shop/b", "west/endpoints/shop/c")
}

func TestConflictingClaimKeepsWhatIsThere(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.accept(meshCluster("west", 1, 0, "10.2.0.0/16"))
	s.put("west", endpoint("west", "b", "10.2.0.2", 2<<16|256))
	s.wantKeys("west/endpoints/shop/a")
	if !strings.Contains(s.agents.clusters, "west synced=false") {
		t.Errorf("a refused cluster must not be synced, agents would sweep: %s", s.agents.clusters)
	}
}

func TestStaleClusterLosesNothing(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.intake.Cluster("west", store.ClusterState{Synced: true, Heartbeat: time.Now()})
	s.intake.Cluster("west", store.ClusterState{Synced: true, Stale: true, Why: "no heartbeat for 60s"})
	s.wantKeys("west/endpoints/shop/a")
	if !strings.Contains(s.agents.clusters, "west synced=true stale=true") {
		t.Errorf("clusters: %s", s.agents.clusters)
	}
}

func TestDeletedMeshClusterIsForgotten(t *testing.T) {
	s := newScene(t)
	north := meshCluster("north", 3, 0, "10.3.0.0/16")
	s.accept(west, north)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256))
	s.put("north", endpoint("north", "a", "10.3.0.1", 3<<16|256))
	s.accept(north)
	s.wantKeys("north/endpoints/shop/a")
	if diff := cmp.Diff([]string{"west"}, s.forgot); diff != "" {
		t.Errorf("forgotten (-want +got):\n%s", diff)
	}
	if strings.Contains(s.agents.clusters, "west") {
		t.Errorf("clusters: %s", s.agents.clusters)
	}
}

func TestWireGuardKeyBelongsToOneNode(t *testing.T) {
	s := newScene(t)
	north := meshCluster("north", 3, 0, "10.3.0.0/16")
	s.accept(west, north)
	s.put("west", node("west", "n1", "192.0.2.1", 1))
	s.put("north", node("north", "n1", "192.0.2.9", 1)) // a thief
	s.wantKeys("west/nodes/n1")
	s.wantRejected("north", "north/nodes/n1 Duplicate")

	// Our own nodes count most, even if they come last.
	own := node("east", "n1", "192.0.2.5", 1)
	s.intake.Changed(eastMesh(), export.Delta{Local: []export.Change{{Key: "east/nodes/n1", Record: own}}})
	s.wantKeys("east/nodes/n1")
	s.wantRejected("west", "west/nodes/n1 Duplicate")

	// When the holder goes, the next heartbeat lets the other in.
	s.intake.Changed(eastMesh(), export.Delta{Local: []export.Change{{Key: "east/nodes/n1"}}})
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.wantKeys("west/nodes/n1")
	s.wantRejected("west")

	// A node that changes its key frees the old one.
	s.put("west", node("west", "n1", "192.0.2.1", 2))
	s.intake.Cluster("north", store.ClusterState{Synced: true})
	s.wantKeys("north/nodes/n1", "west/nodes/n1")
}

func TestSomebodyElseInOurName(t *testing.T) {
	s := newScene(t)
	cluster := func(id uint32, mesh string) *recordv1.Record {
		return &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
			Name: "east", Id: id, MeshId: mesh, PodCidrs: []string{"10.1.0.0/16"}, Labels: map[string]string{v1alpha1.LabelCluster: "east"},
		}}}
	}
	for _, tt := range []struct {
		rec  *recordv1.Record
		want string
	}{
		{cluster(1, "m"), ""},
		{cluster(7, "m"), "clusterID 7"},
		{cluster(1, "n"), "mesh \"n\""},
		{cluster(1, "m"), ""},
	} {
		s.put("east", tt.rec, endpoint("east", "forged", "10.1.0.1", 1<<16|256))
		if got := s.intake.Overview().Impostor; (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("impostor %q, want %q", got, tt.want)
		}
	}
	s.wantKeys([]string(nil)...) // records in our name never come back from the store
}

func TestNewestRejectionsFirstAndBounded(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	for i := range 25 {
		s.put("west", endpoint("west", fmt.Sprintf("p%02d", i), "192.0.2.1", 2<<16|256))
	}
	r := s.intake.Overview().Remotes["west"]
	if r.Rejected != 25 || len(r.Rejections) != 10 || r.Rejections[0].Key != "west/endpoints/shop/p24" {
		t.Errorf("%d rejected, shown %v", r.Rejected, r.Rejections)
	}
}
