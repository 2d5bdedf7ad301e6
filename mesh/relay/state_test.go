// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func at(epoch string, revision uint64) *relayv1.ResumePoint {
	return &relayv1.ResumePoint{Epoch: epoch, Revision: revision}
}

// removed are the keys that a batch makes go.
func removed(changes []*relayv1.Change) []string {
	var out []string
	for _, c := range changes {
		if c.GetRecord() == nil {
			out = append(out, c.GetKey())
		}
	}
	slices.Sort(out)
	return out
}

func TestCompletenessIsByClusterAndKind(t *testing.T) {
	t.Parallel()
	s := NewState()
	held := []string{"east/endpoints/d/a", "east/identities/65792", "west/endpoints/d/b", "west/identities/131328"}
	whole := &relayv1.Batch{SnapshotStart: true, SnapshotEnd: true, At: at("e", 1), Clusters: []*relayv1.ClusterState{
		{Name: "east", SyncedKinds: []string{record.KindIdentity}}, {Name: "west"}, {Name: "declared-ahead", Stale: true},
	}}
	if got, want := removed(s.Apply(whole, slices.Values(held))), []string{"east/identities/65792"}; !slices.Equal(got, want) {
		t.Errorf("removed %v, want %v", got, want)
	}
	if !s.Complete("east", record.KindIdentity) || s.Complete("east", record.KindEndpoint) || s.Complete("west", record.KindIdentity) {
		t.Error("complete by what was said of another cluster or kind")
	}
	if s.Saved() != nil || s.Resume() == nil {
		t.Errorf("saved %v, resume %v, while only this state knows what a sweep must judge", s.Saved(), s.Resume())
	}
	later := &relayv1.Batch{At: at("e", 1), Clusters: []*relayv1.ClusterState{{Name: "east", Synced: true}, {Name: "west", Synced: true, SyncedKinds: record.Kinds()}}}
	if got, want := removed(s.Apply(later, nil)), []string{"east/endpoints/d/a", "west/endpoints/d/b", "west/identities/131328"}; !slices.Equal(got, want) {
		t.Errorf("removed %v, want %v", got, want)
	}
	if s.Saved() == nil {
		t.Error("nothing is left to judge, and still the state could not be resumed from a disk")
	}
}

// What a snapshot didn't mention of a cluster that isn't synced stays until it is.
func TestADarkClusterKeepsItsRecords(t *testing.T) {
	t.Parallel()
	s := NewState()
	held := []string{"dark/endpoints/d/a", "dark/endpoints/d/b"}
	s.Apply(&relayv1.Batch{SnapshotStart: true, SnapshotEnd: true, At: at("e", 1), Clusters: synced("east")}, slices.Values(held))
	if got := s.Apply(&relayv1.Batch{At: at("e", 2), Changes: []*relayv1.Change{put("dark", "a", 1)}}, nil); len(removed(got)) != 0 {
		t.Errorf("a change removed %v", removed(got))
	}
	s.Apply(&relayv1.Batch{At: at("e", 3), Clusters: synced("east", "dark")}, nil)
	if s.Saved() == nil {
		t.Error("dark is synced and its records are not judged")
	}
}

func TestOfTwoChangesOfAKeyTheLastCounts(t *testing.T) {
	t.Parallel()
	s := NewState()
	got := s.Apply(&relayv1.Batch{Changes: []*relayv1.Change{put("east", "a", 1), put("east", "b", 1), gone("east", "a"), put("east", "b", 2)}}, nil)
	if len(got) != 2 || got[0].GetRecord() != nil || !proto.Equal(got[1], put("east", "b", 2)) {
		t.Errorf("changes = %v", got)
	}
}

// What the disk says of completeness was true of another moment: between it and the relay's first batch records came and went.
func TestARestoredStateIsCompleteOnlyByTheRelay(t *testing.T) {
	t.Parallel()
	s := RestoreState([]*relayv1.ClusterState{{Name: "east", Synced: true, Local: true}}, at("e", 5))
	if s.Complete("east", record.KindEndpoint) || s.Local() != "east" {
		t.Errorf("complete %t, local %q", s.Complete("east", record.KindEndpoint), s.Local())
	}
	s.Apply(&relayv1.Batch{At: at("e", 6)}, nil)
	if s.Complete("east", record.KindEndpoint) {
		t.Error("complete before the relay sent the clusters' states")
	}
	s.Apply(&relayv1.Batch{At: at("e", 7), Clusters: synced("east")}, nil)
	if !s.Complete("east", record.KindEndpoint) {
		t.Error("not complete although the relay says so")
	}
}

// A cluster that the relay gave up while the agent was away goes, though no removal was sent and nobody calls it complete.
func TestAClusterThatIsNotNamedIsGone(t *testing.T) {
	t.Parallel()
	east := &relayv1.ClusterState{Name: "east", Local: true, Synced: true, SyncedKinds: record.Kinds()}
	held := slices.Values([]string{"west/identities/131328"})
	for _, c := range []struct {
		name  string
		named []*relayv1.ClusterState
		want  int
	}{
		{"not named", []*relayv1.ClusterState{east}, 1},
		{"named as refused", []*relayv1.ClusterState{east, {Name: "west", Stale: true}}, 0},
		{"a relay that doesn't say which cluster is its own", []*relayv1.ClusterState{{Name: "east", Synced: true}}, 0},
		{"a relay that says nothing of clusters", nil, 0},
	} {
		s := RestoreState([]*relayv1.ClusterState{east}, at("e", 1))
		changes := s.Apply(&relayv1.Batch{SnapshotStart: true, SnapshotEnd: true, At: at("f", 1), Clusters: c.named}, held)
		if got := len(removed(changes)); got != c.want {
			t.Errorf("%s: %d records removed, want %d", c.name, got, c.want)
		}
	}
}
