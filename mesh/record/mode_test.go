// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func TestNamespaceMode(t *testing.T) {
	key := v1alpha1.AnnotationPolicyMode
	for name, tt := range map[string]struct {
		labels, annotations map[string]string
		audit               bool
		problem             string // a part of it
	}{
		"nothing":                  {nil, nil, false, ""},
		"Audit":                    {nil, map[string]string{key: "Audit"}, true, ""},
		"Enforce":                  {nil, map[string]string{key: "Enforce"}, false, ""},
		"another case":             {nil, map[string]string{key: "audit"}, false, `is "audit"`},
		"empty":                    {nil, map[string]string{key: ""}, false, `is ""`},
		"long, and not of letters": {nil, map[string]string{key: "Audit\n" + strings.Repeat("x", 5000)}, false, `is "Audit\nx`},
		"a label":                  {map[string]string{key: "Audit"}, nil, false, "is a label"},
		"both":                     {map[string]string{key: "Enforce"}, map[string]string{key: "Audit"}, true, ""},
	} {
		got := ReadNamespaceMode("shop", tt.labels, tt.annotations)
		if got.Audit != tt.audit || (got.Problem != "") != (tt.problem != "") || !strings.Contains(got.Problem, tt.problem) {
			t.Errorf("%s: %+v", name, got)
		}
		if err := checkText("problem", got.Problem); err != nil {
			t.Errorf("%s: agents would refuse the policy: %v", name, err)
		}
	}
}

// A namespace has no say in what holds for the cluster.
func TestModeOf(t *testing.T) {
	audited, typo := NamespaceMode{Audit: true}, NamespaceMode{Problem: "a typo"}
	for _, tt := range []struct {
		namespace string
		says      NamespaceMode
		cluster   v1alpha1.PolicyMode
		want      Mode
	}{
		{"shop", NamespaceMode{}, "", Mode{}},
		{"shop", NamespaceMode{}, v1alpha1.PolicyEnforce, Mode{}},
		{"shop", audited, v1alpha1.PolicyEnforce, Mode{ByNamespace: true}},
		{"shop", typo, "", Mode{Problem: "a typo"}},
		{"shop", audited, v1alpha1.PolicyAudit, Mode{ByNamespace: true, ByCluster: true}},
		{"", audited, "", Mode{}},
		{"", typo, v1alpha1.PolicyAudit, Mode{ByCluster: true}},
		{"shop", NamespaceMode{}, "audit", Mode{}},
	} {
		if got := ModeOf(tt.namespace, tt.says, tt.cluster); got != tt.want {
			t.Errorf("%q, %+v, %q: %+v, want %+v", tt.namespace, tt.says, tt.cluster, got, tt.want)
		}
	}
}

// Whatever an operator says: what holds for the cluster is no namespace's to weaken.
func TestPoliciesOfTheClusterAreNotAuditedByANamespace(t *testing.T) {
	for namespace, want := range map[string]Mode{"": {}, "shop": {ByNamespace: true}} {
		kind := map[bool]string{true: v1alpha1.KindClusterMeshNetworkPolicy, false: v1alpha1.KindMeshNetworkPolicy}[namespace == ""]
		o, err := Parse(&recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
			Kind: kind, Namespace: namespace, Name: "p", SpecJson: []byte("{}"), AuditedByNamespace: true,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := o.(*Policy).Mode; got != want {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
	}
}
