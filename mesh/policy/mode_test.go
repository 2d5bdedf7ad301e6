// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// in gives a policy the mode that others make of it.
func in(m *Model, mode record.Mode) *Model {
	rec := *m.rec
	rec.Mode = mode
	return Parse(&rec)
}

var (
	byNamespace = record.Mode{ByNamespace: true}
	byCluster   = record.Mode{ByCluster: true}
)

// What becomes of policies that their namespace or their cluster has audited: web is asked whether db may come in.
func TestPoliciesThatOthersHaveAudited(t *testing.T) {
	const (
		floor     = `{"tier":"Baseline","priority":10,"podSelector":{},"ingress":{}}`
		isolates  = `{"podSelector":{},"ingress":{}}`
		allows    = `{"podSelector":{},"ingress":{"allow":[{}]}}`
		denies    = `{"podSelector":{},"ingress":{"deny":[{}],"defaultAction":"Allow"}}`
		onTrial   = `{"podSelector":{},"mode":"Audit","ingress":{"allow":[{}]}}`
		ceiling   = `{"tier":"Admin","priority":10,"podSelector":{},"ingress":{"deny":[{}]}}`
		endpoints = `{"endpointSelector":{},"ingress":[{"fromEndpoints":[{"matchLabels":{"app":"nobody"}}]}]}`
		empty     = `{"podSelector":{}}`
	)
	mesh := func(spec string) *Model { return policyOf(KindMeshNetworkPolicy, "shop", "ns", spec) }
	for _, tt := range []struct {
		name     string
		policies []*Model
		verdict  Verdict
		by       string
	}{
		{"isolation is reported", []*Model{in(mesh(isolates), byNamespace)}, AuditDeny, "ns"},
		{"of a NetworkPolicy, too", []*Model{in(policyOf(KindNetworkPolicy, "shop", "ns", empty), byNamespace)}, AuditDeny, "ns"},
		{"of a CiliumNetworkPolicy, too", []*Model{in(policyOf(KindCiliumNetworkPolicy, "shop", "ns", `{"spec":`+endpoints+`}`), byNamespace)}, AuditDeny, "ns"},
		{"all specs of one", []*Model{in(policyOf(KindCiliumNetworkPolicy, "shop", "ns", `{"specs":[{"endpointSelector":{"matchLabels":{"app":"x"}}},`+endpoints+`]}`), byNamespace)}, AuditDeny, "ns"},
		{"a deny is reported", []*Model{in(mesh(denies), byNamespace)}, AuditDeny, "ns"},
		{"what it allows stays open where Baseline denies", []*Model{in(mesh(allows), byNamespace), tiered("floor", floor)}, Allow, "ns"},
		{"and where a policy of the cluster isolates", []*Model{in(mesh(allows), byNamespace), tiered("c", isolates)}, Allow, "ns"},
		{"a policy that is on trial opens nothing, audited or not", []*Model{in(mesh(onTrial), byNamespace), tiered("floor", floor)}, Deny, "floor"},
		{"an enforcing policy beside it decides", []*Model{in(mesh(allows), byNamespace), tiered("c", denies)}, Deny, "c"},
		{"an administrator's denies", []*Model{in(mesh(allows), byNamespace), tiered("a", ceiling)}, Deny, "a"},
		{"the cluster has an administrator's audited", []*Model{in(mesh(allows), byCluster), in(tiered("a", ceiling), byCluster)}, AuditDeny, "a"},
		{"and those of the Baseline", []*Model{in(tiered("floor", floor), byCluster)}, AuditDeny, "floor"},
		{"one that is broken", []*Model{in(mesh(`{"podSelector":{},"ingress":[]}`), byNamespace)}, AuditDeny, "ns"},
		{"what isn't heeded changes nothing", []*Model{in(mesh(isolates), record.Mode{Problem: "a typo"})}, Deny, "ns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := smallWorld(tt.policies[0].rec)
			w.Policies = tt.policies
			_, k := build(w)
			why := NewReference(w).Explain(tcp80(web, db, Ingress))
			if got := k.decide(tcp80(web, db, Ingress)).Decision; got != why.Decision {
				t.Fatalf("the maps say %+v, the reference %+v", got, why.Decision)
			}
			if why.Verdict != tt.verdict || why.Rule == nil || why.Rule.Name != tt.by {
				t.Errorf("got %+v, want %s by %s", why, tt.verdict, tt.by)
			}
		})
	}
	typo := in(mesh(isolates), record.Mode{Problem: "a typo"})
	if got := typo.Problems(); len(got) != 1 || !got[0].Warning || got[0].Message != "a typo" {
		t.Errorf("a mode that isn't heeded: problems %v", got)
	}
}

// To have policies audited closes nothing that was open, and what it opens is reported: it is what closes again. (What a policy on
// trial would allow isn't: reports are about all policies as if they enforced.) A namespace opens nothing that policies of the
// cluster deny by themselves.
func TestAuditedPoliciesCloseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genScene(t, false)
		enforced, alone := s.in, s.in
		enforced.Policies, alone.Policies = nil, nil
		trial := false
		for _, m := range s.in.Policies {
			p := in(m, record.Mode{})
			trial = trial || p.audit
			enforced.Policies = append(enforced.Policies, p)
			if m.rec.Namespace == "" {
				alone.Policies = append(alone.Policies, p)
			}
		}
		now, before, cluster := NewReference(&s.in), NewReference(&enforced), NewReference(&alone)
		peers := append(slices.Sorted(maps.Keys(s.pods)), identity.World, identity.RemoteNode, identity.Host, identity.Unknown)
		for _, id := range slices.Sorted(maps.Keys(s.pods)) {
			for _, peer := range peers {
				for _, dir := range []Direction{Ingress, Egress} {
					for _, port := range []uint16{80, 443, 8080} {
						c := Connection{id, peer, netip.MustParseAddr(genAddresses[0]), dir, protoTCP, port}
						is, was := now.Evaluate(c), before.Evaluate(c)
						closed := is.Verdict == Deny && was.Verdict != Deny
						silent := is.Verdict == Allow && (was.Verdict == AuditDeny || was.Verdict == Deny && !trial)
						if closed || silent {
							t.Fatalf("%+v: %s, and %s where nothing is audited\n%s", c, is.Verdict, was.Verdict, s)
						}
						// A deny of the cluster's, not the isolation of a pod that its namespace may open.
						why := cluster.Explain(c)
						denied := why.Verdict == Deny && why.Rule != nil && why.Rule.Index >= 0 && why.Rule.Tier != TierBaseline
						if denied && !s.oracle.audited && is.Verdict != Deny {
							t.Fatalf("%+v: %s, and the policies of the cluster deny it\n%s", c, is.Verdict, s)
						}
					}
				}
			}
		}
	})
}
