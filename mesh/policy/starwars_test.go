// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// pod returns the labels of an identity in a test.
func pod(cluster, namespace string, kv ...string) map[string]string {
	own := map[string]string{}
	for i := 0; i+1 < len(kv); i += 2 {
		own[kv[i]] = kv[i+1]
	}
	return identity.PodLabels(cluster, namespace, "default", own, nil)
}

// The scenario that people know from Cilium: ships of the empire may land on the deathstar, others may not.
func TestStarWars(t *testing.T) {
	const deathstar, tiefighter, xwing, farTiefighter = 1<<16 | 256, 1<<16 | 257, 1<<16 | 258, 2<<16 | 300
	in := World{
		Cluster:  "east",
		Clusters: map[string]map[string]string{"east": {"region": "core"}, "west": {"region": "rim"}},
		Identities: map[uint32]map[string]string{
			deathstar:     pod("east", "galaxy", "org", "empire", "class", "deathstar"),
			tiefighter:    pod("east", "galaxy", "org", "empire", "class", "tiefighter"),
			xwing:         pod("east", "galaxy", "org", "alliance", "class", "xwing"),
			farTiefighter: pod("west", "galaxy", "org", "empire", "class", "tiefighter"),
		},
	}
	lands := func(r *Reference, ship uint32, port uint16) bool {
		in := r.Evaluate(Connection{Subject: deathstar, Peer: ship, Dir: Ingress, Proto: protoTCP, Port: port})
		if in.Passes() && r.world.Identities[ship][identity.LabelCluster] == "east" {
			return r.Evaluate(Connection{Subject: ship, Peer: deathstar, Dir: Egress, Proto: protoTCP, Port: port}).Passes()
		}
		return in.Passes()
	}
	expect := func(r *Reference, who string, ship uint32, port uint16, want bool) {
		t.Helper()
		if got := lands(r, ship, port); got != want {
			t.Errorf("%s on port %d: lands=%t, want %t", who, port, got, want)
		}
	}

	open := NewReference(new(in))
	expect(open, "tiefighter without policy", tiefighter, 80, true)
	expect(open, "xwing without policy", xwing, 80, true)

	in.Policies = []*Model{Parse(&record.Policy{
		PolicyKind: KindNetworkPolicy, Namespace: "galaxy", Name: "empire-only",
		Spec: []byte(`{"podSelector":{"matchLabels":{"org":"empire","class":"deathstar"}},
			"ingress":[{"from":[{"podSelector":{"matchLabels":{"org":"empire"}}}],"ports":[{"protocol":"TCP","port":80}]}]}`),
	})}
	closed := NewReference(new(in))
	if len(closed.Problems) > 0 {
		t.Fatalf("problems: %v", closed.Problems)
	}
	expect(closed, "tiefighter", tiefighter, 80, true)
	expect(closed, "tiefighter", tiefighter, 443, false)
	expect(closed, "xwing", xwing, 80, false)
	expect(closed, "tiefighter of another cluster", farTiefighter, 80, false)

	d := closed.Evaluate(Connection{deathstar, xwing, netip.Addr{}, Ingress, protoTCP, 80})
	if rule := closed.Rules[d.Rule]; rule.Name != "empire-only" || rule.Kind != RuleIsolate {
		t.Errorf("the xwing's denial is blamed on %+v", rule)
	}
	if !closed.Evaluate(Connection{xwing, tiefighter, netip.Addr{}, Ingress, protoTCP, 80}).Passes() {
		t.Error("pods that the policy does not select became isolated")
	}

	in.Policies = append(in.Policies, Parse(&record.Policy{
		PolicyKind: KindMeshNetworkPolicy, Namespace: "galaxy", Name: "whole-empire",
		Spec: []byte(`{"podSelector":{"matchLabels":{"class":"deathstar"}},"ingress":{"allow":[
			{"peers":[{"clusterSelector":{"matchLabels":{"region":"rim"}},"podSelector":{"matchLabels":{"org":"empire"}}}],"ports":[{"port":80}]}]}}`),
	}))
	mesh := NewReference(new(in))
	expect(mesh, "tiefighter of another cluster, invited", farTiefighter, 80, true)
	expect(mesh, "tiefighter", tiefighter, 80, true)
	expect(mesh, "xwing", xwing, 80, false)
}
