// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// definition reads one of config/crd as the apiserver takes it in.
func definition(t *testing.T, file string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v1 apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &v1); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&v1)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
	v1.Status.StoredVersions = []string{v1.Spec.Versions[0].Name}
	var out apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, &out, nil); err != nil {
		t.Fatal(err)
	}
	return &out
}

// An apiserver takes all definitions: rules compile, and cost no more at worst than it allows.
func TestDefinitionsAreValid(t *testing.T) {
	files, err := filepath.Glob("../../config/crd/fairlead.dev_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	for _, file := range files {
		for _, err := range validation.ValidateCustomResourceDefinition(context.Background(), definition(t, file)) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What the CEL rules about ICMP take and refuse. mesh/policy refuses the same, and what needs more than CEL.
func TestRulesAboutICMP(t *testing.T) {
	const most = 1 << 30 // of CEL's cost, here without meaning
	d := definition(t, "../../config/crd/fairlead.dev_meshnetworkpolicies.yaml")
	s, err := schema.NewStructural(d.Spec.Validation.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	v := cel.NewValidator(s, true, most)
	for entry, ok := range map[string]bool{
		`{}`: true, `{"type":"EchoRequest"}`: true, `{"family":"IPv4","type":8}`: true, `{"family":"IPv6","type":"EchoReply"}`: true, `{"family":"IPv4"}`: true,
		`{"family":"IPv4","type":0}`: true, `{"family":"IPv6","type":255}`: true,
		`{"type":8}`: false, `{"family":"IPv4","type":256}`: false, `{"family":"IPv4","type":-1}`: false,
	} {
		var o map[string]any
		if err := utilyaml.Unmarshal([]byte(`{"spec":{"podSelector":{},"ingress":{"allow":[{"icmp":[`+entry+`]}]}}}`), &o); err != nil {
			t.Fatal(err)
		}
		if errs, _ := v.Validate(context.Background(), nil, s, o, nil, most); (len(errs) == 0) != ok {
			t.Errorf("%s: %v, want it to be valid: %t", entry, errs, ok)
		}
	}
}
