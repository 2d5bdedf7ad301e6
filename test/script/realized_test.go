// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"testing"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Each policy selects pods of its own, and no group of lines can be written: none of the policies is in force, also where there are
// more closed subjects than the agent looks at one by one.
func TestNoPolicyIsReportedInForceWhileItsSubjectsAreClosed(t *testing.T) {
	const policies = 70
	k := newKernel("e1")
	changes := east(t, "east")
	for i := range uint32(policies) {
		app := fmt.Sprintf("app%d", i)
		identity := id(1<<16|300+i, "east")
		identity.Labels["app"] = app
		changes = append(changes, rec(t, "east", identity),
			rec(t, "east", ep(app, fmt.Sprintf("10.1.0.%d", 20+i), identity.GetId(), "e1")),
			rec(t, "east", &recordv1.Policy{
				Kind: "NetworkPolicy", Namespace: "default", Name: app, Generation: 1,
				// A port of its own, so that no two subjects share a group of lines.
				SpecJson: fmt.Appendf(nil, `{"podSelector":{"matchLabels":{"app":%q}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"protocol":"TCP","port":%d}]}]}`, app, 8000+i),
			}))
	}
	k.groups.fail(forever)
	a, end := begin(t, k, "", k.drivers())
	defer end()
	handle(t, a, snap("a", 1, []*relayv1.ClusterState{st("east", true, true)}, changes))
	await(t, "the policies are reported", func() bool { return len(a.State().Policies) == policies })
	for _, p := range a.State().Policies {
		if p.Error == "" {
			t.Errorf("%s is reported in force", p.Key)
		}
	}
	k.groups.fail(0)
	await(t, "the policies are in force", func() bool {
		for _, p := range a.State().Policies {
			if p.Error != "" {
				return false
			}
		}
		return true
	})
}
