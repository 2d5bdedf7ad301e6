// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// What a namespace says of its policies' mode costs these, and what the cluster says costs all policies and nothing else.
func TestModesOfPolicies(t *testing.T) {
	s := NewState("v1")
	s.SetMesh(testMesh())
	s.SetNamespace("shop", nil, false)
	for _, p := range []Policy{
		{Kind: v1alpha1.KindNetworkPolicy, Namespace: "shop", Name: "a"},
		{Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: "b"},
		{Kind: v1alpha1.KindCiliumNetworkPolicy, Namespace: "shop", Name: "c"},
		{Kind: v1alpha1.KindNetworkPolicy, Namespace: "other", Name: "a"},
		{Kind: v1alpha1.KindClusterMeshNetworkPolicy, Name: "floor"},
		{Kind: v1alpha1.KindClusterNetworkPolicy, Name: "ceiling"},
	} {
		s.SetPolicy(p)
	}
	all := len(s.Flush().Local) - 1 // the cluster's own record
	if all != 6 {
		t.Fatalf("%d policies", all)
	}
	audited := followModes(t)
	for _, step := range []struct {
		what    string
		change  func()
		changed int
		audited []string
		warned  int
	}{
		{"the namespace has its policies audited", func() { s.SetNamespaceMode("shop", record.NamespaceMode{Audit: true}) }, 3, []string{"a", "b", "c"}, 0},
		{"says so again", func() { s.SetNamespaceMode("shop", record.NamespaceMode{Audit: true}) }, 0, []string{"a", "b", "c"}, 0},
		{"a namespace without policies", func() { s.SetNamespaceMode("empty", record.NamespaceMode{Audit: true}) }, 0, []string{"a", "b", "c"}, 0},
		{"a policy that comes later", func() { s.SetPolicy(Policy{Kind: v1alpha1.KindNetworkPolicy, Namespace: "shop", Name: "d"}) }, 1, []string{"a", "b", "c", "d"}, 0},
		{"one that goes", func() { s.RemovePolicy(v1alpha1.KindNetworkPolicy, "shop", "d") }, 1, []string{"a", "b", "c"}, 0},
		{"a typo enforces, and its policies' owners are told", func() { s.SetNamespaceMode("shop", record.NamespaceMode{Problem: "a typo"}) }, 3, nil, 3},
		{"nothing is said any more", func() { s.SetNamespaceMode("shop", record.NamespaceMode{}) }, 3, nil, 0},
		{"the cluster", func() { m := testMesh(); m.Policy.Mode = v1alpha1.PolicyAudit; s.SetMesh(m) }, 6, []string{"a", "a", "b", "c", "ceiling", "floor"}, 0},
		{"the cluster again", func() { s.SetMesh(testMesh()) }, 6, nil, 0},
	} {
		step.change()
		d := s.Flush()
		got := audited(d)
		if len(d.Local) != step.changed || len(d.Published.Put)+len(d.Published.Delete) > 0 || !slices.Equal(got, step.audited) || len(d.Warnings) != step.warned {
			t.Errorf("%s: %d records changed (%d published), audited are %v, warnings %v", step.what, len(d.Local), len(d.Published.Put), got, d.Warnings)
		}
	}
}

// followModes gives a function that takes deltas and names the policies that are audited after each.
func followModes(t *testing.T) func(Delta) []string {
	t.Helper()
	is := map[string]*record.Policy{}
	return func(d Delta) []string {
		for _, c := range d.Local {
			delete(is, c.Key)
			if c.Record == nil {
				continue
			}
			o, err := record.Parse(c.Record)
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := o.(*record.Policy); ok {
				is[c.Key] = p
			}
		}
		var names []string
		for _, p := range is {
			if p.Mode.Audit() {
				names = append(names, p.Name)
			}
		}
		slices.Sort(names)
		return names
	}
}
