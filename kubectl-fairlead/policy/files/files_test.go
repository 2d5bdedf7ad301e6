// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
)

// Services in files are those that policies beside them name, in the clusters that their annotations say.
func TestServicesInFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"objects.yaml": `
apiVersion: v1
kind: Service
metadata: {name: api, annotations: {fairlead.dev/cluster: east, fairlead.dev/global: "true"}}
spec: {selector: {app: api}}
---
apiVersion: v1
kind: Service
metadata: {name: api, annotations: {fairlead.dev/cluster: west, fairlead.dev/global: "true"}}
spec: {selector: {app: api, track: stable}}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.7]}]
---
apiVersion: fairlead.dev/v1alpha1
kind: MeshNetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  egress: {allow: [{peers: [{services: [{name: api}, {name: outside}]}]}]}
`,
		"web_test.yaml": `
clusters: {east: {podCIDRs: [10.1.0.0/16]}, west: {podCIDRs: [10.2.0.0/16]}}
pods:
  - {name: east/shop/web, labels: {app: web}}
  - {name: east/shop/api, labels: {app: api}}
  - {name: west/shop/api, labels: {app: api, track: stable}}
  - {name: west/shop/canary, labels: {app: api}}
expect:
  - {from: east/shop/web, to: "east/shop/api:80", verdict: allowed}
  - {from: east/shop/web, to: "west/shop/api:80", verdict: allowed}
  - {from: east/shop/web, to: "west/shop/canary:80", verdict: denied}
  - {from: east/shop/web, to: "203.0.113.7:80", verdict: allowed}
  - {from: east/shop/web, to: "203.0.113.8:80", verdict: denied}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Read([]string{dir}, "shop")
	if err != nil {
		t.Fatal(err)
	}
	report, problems := expect.Run(tree)
	if len(problems) > 0 || report.Failed > 0 || report.Passed != 5 {
		t.Errorf("%d passed, %d failed: %+v; %v", report.Passed, report.Failed, report.Results, problems)
	}
}
