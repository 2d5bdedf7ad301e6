// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func TestPolicyKindsAreWhatTheyAreCalled(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{networkingv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range v1alpha1.PolicyKinds() {
		o := kind.New()
		gvks, _, err := scheme.ObjectKinds(o)
		if err != nil || gvks[0] != kind.GroupVersion.WithKind(kind.Name) {
			t.Errorf("%s makes objects of %v, %v", kind.Name, gvks, err)
		}
		if of, ok := v1alpha1.PolicyKindOf(o); !ok || of.Name != kind.Name {
			t.Errorf("an object of %s is taken for one of %q", kind.Name, of.Name)
		}
		if named, ok := v1alpha1.PolicyKindNamed(kind.Name); !ok || named.GroupVersion != kind.GroupVersion {
			t.Errorf("%s is found as %+v", kind.Name, named)
		}
		if kind.Spec(o) == nil || kind.Spec(&v1alpha1.MeshNode{}) != nil {
			t.Errorf("%s: a spec is %v, a MeshNode's %v", kind.Name, kind.Spec(o), kind.Spec(&v1alpha1.MeshNode{}))
		}
		if ours := kind.GroupVersion == v1alpha1.GroupVersion; ours != (kind.Status != nil) {
			t.Errorf("%s has a status of ours: %t", kind.Name, !ours)
		} else if ours && (kind.Status(o) == nil || scopeOf(t, kind.Name) != kind.Namespaced) {
			t.Errorf("%s: status %v, namespaced %t", kind.Name, kind.Status(o), kind.Namespaced)
		}
	}
	kind, _ := v1alpha1.PolicyKindNamed(v1alpha1.KindClusterNetworkPolicy)
	if kind.CRD == "" || kind.Conditions == nil || kind.Conditions(kind.New()) == nil || kind.Conditions(&v1alpha1.MeshNetworkPolicy{}) != nil {
		t.Errorf("a ClusterNetworkPolicy has no conditions, or is always there: %+v", kind)
	}
	if _, ok := v1alpha1.PolicyKindOf(&v1alpha1.MeshNode{}); ok {
		t.Error("a MeshNode is taken for a policy")
	}
}

// scopeOf says whether the installed CRD of a kind is namespaced.
func scopeOf(t *testing.T, kind string) bool {
	t.Helper()
	files, err := filepath.Glob("../../config/crd/fairlead.dev_*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var crd struct {
			Spec struct {
				Scope string
				Names struct{ Kind string }
			}
		}
		data, err := os.ReadFile(f)
		if err == nil {
			err = yaml.Unmarshal(data, &crd)
		}
		if err != nil {
			t.Fatal(err)
		}
		if crd.Spec.Names.Kind == kind {
			return crd.Spec.Scope == "Namespaced"
		}
	}
	t.Fatalf("no CRD of %s", kind)
	return false
}

// What a record's key allows and what an object may be are written in two places; they must agree.
func TestRecordsTakeEveryPolicyKind(t *testing.T) {
	key := func(kind, namespace string) (string, error) {
		return record.Key(&recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Policy{
			Policy: &recordv1.Policy{Kind: kind, Namespace: namespace, Name: "p"},
		}})
	}
	for _, kind := range v1alpha1.PolicyKinds() {
		right, wrong := "shop", ""
		if !kind.Namespaced {
			right, wrong = wrong, right
		}
		if k, err := key(kind.Name, right); err != nil || !strings.Contains(k, "/"+kind.Name+"/") {
			t.Errorf("a %s has key %q, %v", kind.Name, k, err)
		}
		if k, err := key(kind.Name, wrong); err == nil {
			t.Errorf("a %s in namespace %q has key %q", kind.Name, wrong, k)
		}
	}
}
