// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/flow"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

func TestVerdicts(t *testing.T) {
	time.Local = time.UTC
	xwing := flow.Party{Address: "10.14.0.5", Port: 40312, Identity: 65793, Cluster: "east", Namespace: "starwars", Pod: "xwing-7d9f-abc"}
	deathstar := flow.Party{Address: "10.24.1.3", Port: 80, Identity: 131337, Cluster: "west", Namespace: "starwars", Pod: "deathstar-0"}
	noon := time.Date(2026, 1, 2, 12, 0, 0, 123e6, time.UTC)
	verdicts := []flow.Verdict{
		{
			Time: noon, Context: "west", Node: "west-2", Verdict: "denied", Reason: "default-denied", Protocol: "TCP", Source: xwing, Dest: deathstar, Packets: 4,
			Policy: &flow.Policy{Kind: "MeshNetworkPolicy", Namespace: "starwars", Name: "deathstar", Path: "policies/deathstar.yaml", Revision: "main@sha1:0123456789abcdef0123456789abcdef01234567"},
		},
		{Time: noon, Context: "east", Node: "east-1", Verdict: "allowed", Reason: "tunneled", Protocol: "TCP", Source: xwing, Dest: deathstar, Packets: 1},
		{Time: noon, Context: "east", Node: "east-1", Verdict: "audited", Reason: "audited", Protocol: "UDP", Source: xwing, Dest: flow.Party{Address: "2001:db8::1", Port: 53, Identity: 2}},
	}
	for _, c := range []struct {
		file, format     string
		colour, clusters bool
	}{
		{"verdicts.txt", "text", false, true},
		{"verdicts-one-cluster.txt", "text", false, false},
		{"verdicts.jsonl", "json", false, true},
	} {
		var out bytes.Buffer
		if err := render.Verdicts(&out, c.format, c.colour, c.clusters, verdicts); err != nil {
			t.Fatal(err)
		}
		golden(t, c.file, out.Bytes())
	}
}
