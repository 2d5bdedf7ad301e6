// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a Namespace or a ClusterMesh among the files says of policies' mode holds for expectations, and doesn't for what lint finds.
func TestModesInFiles(t *testing.T) {
	const (
		namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {fairlead.dev/policy-mode: %}}\n"
		policies  = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}]}, {from: [{podSelector: {matchLabels: {app: api}}}]}]}
`
		mesh = `apiVersion: fairlead.dev/v1alpha1
kind: ClusterMesh
metadata: {name: mesh}
spec: {meshID: m, clusterName: east, clusterID: 1, podCIDRs: [10.1.0.0/16], store: {endpoints: ["https://s:2379"], tlsSecretRef: {name: s}}, policy: {mode: Audit}}
`
	)
	for name, tt := range map[string]struct {
		objects, clusters, verdict, says string
		lint                             string
	}{
		"nothing":                {policies, "", "denied", "", "rule-redundant"},
		"a namespace":            {policies + "---\n" + strings.ReplaceAll(namespace, "%", "Audit"), "", "audited", "Audit by its namespace", "rule-redundant"},
		"a typo":                 {policies + "---\n" + strings.ReplaceAll(namespace, "%", "audit"), "", "denied", "", "neither Enforce nor Audit"},
		"the only cluster":       {policies + "---\n" + mesh, "", "audited", "Audit by the ClusterMesh", "rule-redundant"},
		"a cluster of this name": {policies + "---\n" + mesh, "clusters: {east: {}}\n", "audited", "Audit by the ClusterMesh", "rule-redundant"},
		"another cluster":        {policies + "---\n" + mesh, "clusters: {west: {}}\n", "denied", "", "rule-redundant"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cluster := "local"
			if tt.clusters != "" {
				cluster = tt.clusters[len("clusters: {") : len("clusters: {")+4]
			}
			expectations := tt.clusters + `pods: [{name: ` + cluster + `/shop/api, labels: {app: api}}, {name: ` + cluster + `/shop/web, labels: {app: web}}]
expect: [{from: ` + cluster + `/shop/web, to: "` + cluster + `/shop/api:80", verdict: ` + tt.verdict + `}]
`
			for file, text := range map[string]string{"shop.yaml": tt.objects, "shop_test.yaml": expectations} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			if err := (&testOptions{format: "text"}).run(&out, false, []string{dir}); err != nil {
				t.Errorf("test: %v\n%s", err, &out)
			}
			var why bytes.Buffer
			_ = explainFiles(&why, "text", []string{dir}, cluster+"/shop/web", cluster+"/shop/api:80")
			if !strings.Contains(why.String(), tt.says) {
				t.Errorf("explain doesn't say %q:\n%s", tt.says, &why)
			}
			out.Reset()
			_ = (&lintOptions{format: "text"}).run(t.Context(), &out, false, []string{dir})
			if !strings.Contains(out.String(), tt.lint) || !strings.Contains(out.String(), "rule-redundant") {
				t.Errorf("lint doesn't say %q:\n%s", tt.lint, &out)
			}
		})
	}
}
