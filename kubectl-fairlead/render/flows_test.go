// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/flows"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

func TestFlows(t *testing.T) {
	here := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = here })
	xwing := flow.Peer{Address: "10.14.0.5", Port: 40312, Identity: 65793, Cluster: "east", Namespace: "starwars", Pod: "xwing-7d9f-abc"}
	deathstar := flow.Peer{Address: "10.24.1.3", Port: 80, Identity: 131337, Cluster: "west", Namespace: "starwars", Pod: "deathstar-0"}
	noon := time.Date(2026, 1, 2, 12, 0, 0, 123e6, time.UTC)
	all := []flows.Flow{
		{Context: "admin@west", Flow: flow.Flow{
			Time: noon, Node: "west-2", Cluster: "west", Verdict: flow.Denied, Reason: "default-denied", Protocol: "TCP", Source: xwing, Destination: deathstar, Packets: 4,
			Policy: &flow.Policy{
				Kind: "MeshNetworkPolicy", Namespace: "starwars", Name: "deathstar", Rule: "ingress default deny",
				Path: "policies/deathstar.yaml", Revision: "main@sha1:0123456789abcdef0123456789abcdef01234567",
			},
		}},
		{Context: "admin@east", Flow: flow.Flow{Time: noon, Node: "east-1", Cluster: "east", Verdict: flow.Allowed, Reason: "tunneled", Protocol: "TCP", Source: xwing, Destination: deathstar, Packets: 1}},
		{Context: "admin@east", Flow: flow.Flow{
			Time: noon, Node: "east-1", Verdict: flow.Dropped, Reason: "invalid-source", Protocol: "UDP",
			Source: xwing, Destination: flow.Peer{Address: "2001:db8::1", Port: 53, Identity: 2, Kind: "world"},
		}},
	}
	for _, c := range []struct {
		file, format string
		clusters     bool
	}{
		{"flows.txt", "text", true},
		{"flows-one-cluster.txt", "text", false},
		{"flows.jsonl", "json", true},
	} {
		var out bytes.Buffer
		if err := render.Flows(&out, c.format, false, c.clusters, all); err != nil {
			t.Fatal(err)
		}
		golden(t, c.file, out.Bytes())
	}
	if all[0].Policy.Revision != "main@sha1:0123456789abcdef0123456789abcdef01234567" {
		t.Error("rendering changed what it was given")
	}
}
