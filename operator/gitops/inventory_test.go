// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// What somebody changed by hand is put back, whatever is left of their writing in the object: the API server refuses some of what
// server-side apply makes of an object when it takes fields away, such as the last of a struct.
func TestWhatWasMadeByHandIsTakenOver(t *testing.T) {
	s := newStory(t)
	open := "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: c}\nspec: {podSelector: {}, ingress: {}}\n"
	s.write(map[string]string{"a.yaml": meshPolicy("a", "two"), "c.yaml": open})
	second := s.push()
	s.reconcile()

	// Made again by hand as it was, marks and all: it isn't what this source applied until it applied it.
	was := s.policies()["a"]
	if err := kube.Delete(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	again := &v1alpha1.MeshNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: was.Namespace, Name: was.Name, Labels: was.Labels, Annotations: was.Annotations}, Spec: was.Spec,
	}
	if err := kube.Create(t.Context(), again, client.FieldOwner("kubectl")); err != nil {
		t.Fatal(err)
	}
	if reqs := s.r.sourceOfDrifted(t.Context(), again); len(reqs) != 1 {
		t.Error("an object that was made again asks for no look")
	}
	wantCondition(t, s.reconcile(), "Ready", "True", ReasonSucceeded, second)
	s.wantInventory("made again by hand", second, "a", "c")
	managers := map[string]bool{}
	for _, m := range s.policies()["a"].ManagedFields {
		managers[m.Manager] = true
	}
	if !managers[FieldManager] {
		t.Errorf("the object that was made again was not applied: managed by %v", managers)
	}

	// A field added to an empty struct, by whichever way of writing.
	c := s.policies()["c"]
	c.Spec.PodSelector.MatchLabels = map[string]string{"app": "few"}
	if err := kube.Update(t.Context(), c, client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, s.reconcile(), "Ready", "True", ReasonSucceeded, second)
	narrow := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "MeshNetworkPolicy", "metadata": map[string]any{"namespace": s.ns, "name": "c"},
		"spec": map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"app": "few"}}, "ingress": map[string]any{}},
	}}
	if err := kube.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(narrow), client.FieldOwner("kubectl"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, s.reconcile(), "Ready", "True", ReasonSucceeded, second)
	if got := s.policies()["c"].Spec.PodSelector; len(got.MatchLabels) != 0 {
		t.Errorf("what was added is still there: %v", got)
	}
	s.wantInventory("edited by hand", second, "a", "c")
	// And the next commit can take fields away that somebody else wrote too.
	s.write(map[string]string{"a.yaml": "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}, egress: {}}\n"})
	second = s.push()
	wantCondition(t, s.reconcile(), "Ready", "True", ReasonSucceeded, second)
	if got := s.policies()["a"].Spec; got.Ingress != nil || len(got.PodSelector.MatchLabels) != 0 || got.Egress == nil {
		t.Errorf("the next commit made of a: %+v", got)
	}
	s.wantInventory("the next commit", second, "a", "c")

	// While the repository is out of reach, the last good policies are put back, under other UIDs.
	if err := kube.Delete(t.Context(), s.policies()["c"]); err != nil {
		t.Fatal(err)
	}
	src := s.source()
	src.Spec.Git.URL = "http://127.0.0.1:1/policies.git"
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	s.wantInventory("put back", second, "a", "c")
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

// A commit that leaves out the last field of a struct is as good as any.
func TestACommitEmptiesAStruct(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one")})
	s.push()
	s.reconcile()
	s.write(map[string]string{"a.yaml": "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}, ingress: {}}\n"})
	second := s.push()
	wantCondition(t, s.reconcile(), "Ready", "True", ReasonSucceeded, second)
	if got := s.policies()["a"].Spec.PodSelector; len(got.MatchLabels) != 0 {
		t.Errorf("podSelector is still %v", got)
	}
	s.wantInventory("emptied", second, "a")
}
