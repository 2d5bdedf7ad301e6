// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"encoding/json"
	"testing"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// wantInventory says that the inventory names the objects that are in the cluster, as they are.
func (s *story) wantInventory(what, revision string, names ...string) {
	s.t.Helper()
	src, have := s.source(), s.policies()
	if src.Status.InventoryRevision != revision || src.Status.InventoryURL != s.URL || len(src.Status.Inventory) != len(names) {
		s.t.Errorf("%s: inventory of %s at %s is %+v", what, src.Status.InventoryURL, src.Status.InventoryRevision, src.Status.Inventory)
	}
	for i, e := range src.Status.Inventory {
		p := have[e.Name]
		if i >= len(names) || e.Name != names[i] || p == nil {
			s.t.Errorf("%s: entry %+v, want %v", what, e, names)
			continue
		}
		spec, err := json.Marshal(p.Spec)
		if err != nil {
			s.t.Fatal(err)
		}
		if e.UID != string(p.UID) || e.Content != record.SpecContent(spec) {
			s.t.Errorf("%s: entry %+v, but the object is %s with %s", what, e, p.UID, record.SpecContent(spec))
		}
	}
}

// The inventory proves which object is from which commit, so it must name what is there.
func TestTheInventoryNamesWhatWasApplied(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "b.yaml": meshPolicy("b", "one")})
	first := s.push()
	s.reconcile()
	s.wantInventory("a commit", first, "a", "b")

	s.write(map[string]string{"a.yaml": meshPolicy("a", "two"), "b.yaml": "", "c.yaml": meshPolicy("c", "one")})
	second := s.push()
	s.reconcile()
	s.wantInventory("another commit", second, "a", "c")
}

// Before it writes, a source says what the policies are going to be: agents that get one at once shall know its commit.
func TestTheInventoryIsAheadOfTheCluster(t *testing.T) {
	entries := []v1alpha1.InventoryEntry{{Kind: "NetworkPolicy", Namespace: "shop", Name: "a", Path: "a.yaml"}, {Kind: "NetworkPolicy", Namespace: "shop", Name: "gone", Path: "old.yaml", UID: "u", Content: "x"}}
	would := newPrints()
	would.states["NetworkPolicy/shop/a"] = state{"p", "", "y"}
	got := proven(entries, would)
	if got[0].Content != "y" || got[0].UID != "" {
		t.Errorf("what is going to be created: %+v", got[0])
	}
	if got[1].Content != "" || got[1].UID != "" || got[1].Path != "old.yaml" {
		t.Errorf("what is going to be pruned proves something: %+v", got[1])
	}
	if entries[1].UID != "u" {
		t.Error("the status was changed in place")
	}
}
