// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/condition"
)

// What the API server says of policies in tiers.
func TestTiersAreValidated(t *testing.T) {
	const (
		cluster  = "apiVersion: fairlead.dev/v1alpha1\nkind: ClusterMeshNetworkPolicy\nmetadata: {name: x}\nspec: "
		inside   = "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: x, namespace: shop}\nspec: "
		upstream = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: x}\nspec: "
	)
	for _, tt := range []struct{ name, text, refused string }{
		{"no tier", cluster + "{podSelector: {}, ingress: {}}", ""},
		{"a tier", cluster + "{tier: Admin, priority: 0, podSelector: {}, ingress: {pass: [{}], defaultAction: Allow}}", ""},
		{"the last priority", cluster + "{tier: Baseline, priority: 1000, podSelector: {}, egress: {}}", ""},
		{"a tier without priority", cluster + "{tier: Admin, podSelector: {}, ingress: {}}", "need each other"},
		{"a priority without tier", cluster + "{priority: 1, podSelector: {}, ingress: {}}", "need each other"},
		{"a priority too high", cluster + "{tier: Admin, priority: 1001, podSelector: {}, ingress: {}}", "1000"},
		{"a tier that isn't", cluster + "{tier: Top, priority: 1, podSelector: {}, ingress: {}}", "Unsupported value"},
		{"pass without tier", cluster + "{podSelector: {}, egress: {pass: [{}]}}", "pass needs a tier"},
		{"pass of a namespace", inside + "{podSelector: {}, ingress: {pass: [{}]}}", "pass is for"},
		{"upstream's", upstream + "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Pass, to: [{networks: [10.0.0.0/8]}]}]}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(tt.text), &u.Object); err != nil {
				t.Fatal(err)
			}
			err := kube.Create(t.Context(), u, client.DryRunAll)
			if tt.refused == "" && err != nil || tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)) {
				t.Errorf("%v, want %q", err, tt.refused)
			}
		})
	}
}

func TestClusterNetworkPoliciesMayBeInGit(t *testing.T) {
	objects, err := Parse([]File{{Path: "a.yaml", Data: []byte("apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: floor}\n" +
		"spec: {tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n")}}, "target", DefaultLimits())
	if err != nil || len(objects) != 1 || objects[0].ref() != v1alpha1.KindClusterNetworkPolicy+"/floor" {
		t.Errorf("%v, %v", refs(objects), err)
	}
}

// Cilium's kinds go through the types here as they are written: specs of whatever content, others' conditions, and one of ours that
// differs from what the API server keeps only when there is something to say.
func TestCiliumPoliciesAreKeptAsWritten(t *testing.T) {
	const text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: kept, namespace: default}\n" +
		"spec: {endpointSelector: {}, ingress: [{fromEndpoints: [], moon: {b: 1, a: [x]}}]}\nspecs: [{endpointSelector: {matchLabels: {\"k8s:app\": web}}}]\n"
	objects, err := Parse([]File{{Path: "a.yaml", Data: []byte(text)}}, "", DefaultLimits())
	if err != nil || len(objects) != 1 {
		t.Fatalf("%v, %v", refs(objects), err)
	}
	if err := kube.Create(t.Context(), objects[0].Unstructured); err != nil {
		t.Fatal(err)
	}
	was, err := stateOf(objects[0].Unstructured)
	if err != nil {
		t.Fatal(err)
	}
	read := func() *ciliumv2.CiliumNetworkPolicy {
		p := &ciliumv2.CiliumNetworkPolicy{}
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "kept"}, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := read()
	if print, err := fingerprint(p); err != nil || print != was.print {
		t.Errorf("the object has drifted at once: %v, %+v", err, p)
	}
	kind, _ := v1alpha1.PolicyKindNamed(v1alpha1.KindCiliumNetworkPolicy)
	if spec, _ := json.Marshal(kind.Spec(p)); string(spec) != `{"spec":{"endpointSelector":{},"ingress":[{"fromEndpoints":[],"moon":{"a":["x"],"b":1}}]},"specs":[{"endpointSelector":{"matchLabels":{"k8s:app":"web"}}}]}` {
		t.Errorf("the spec is %s", spec)
	}
	for _, wrote := range []bool{true, false} {
		p := read()
		before := p.DeepCopy()
		condition.Setter{Conditions: kind.Conditions(p)}.True(v1alpha1.ConditionPolicyReady, "Ready", "in force")
		if did, err := condition.Patch(t.Context(), kube, before, p); err != nil || did != wrote {
			t.Errorf("the status was written: %t, %v; want %t", did, err, wrote)
		}
	}
}

// The definition that tests apply is that of the types in use.
func TestForeignDefinitionsAreUpToDate(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	const name = "policy.networking.k8s.io_clusternetworkpolicies.yaml"
	theirs, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/experimental", name))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(filepath.Join("../../test/crd", name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, theirs) {
		t.Errorf("test/crd/%s is not that of the module in go.mod", name)
	}
}
