// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// manyRules is a NetworkPolicy with a rule for each of many selectors.
func manyRules(namespace string, from, to int) *Model {
	var rules []string
	for i := from; i < to; i++ {
		rules = append(rules, fmt.Sprintf(`{"from":[{"podSelector":{"matchLabels":{"x":"%d"}}}]}`, i))
	}
	return Parse(&record.Policy{
		PolicyKind: KindNetworkPolicy, Namespace: namespace, Name: "many",
		Spec: fmt.Appendf(nil, `{"podSelector":{},"ingress":[%s]}`, strings.Join(rules, ",")),
	})
}

// applyAll takes steps until there is nothing to do.
func applyAll(e *Engine, k *kernel) {
	for {
		d := e.Step()
		if k.apply(d); !d.Again {
			return
		}
	}
}

// Another tenant's policies stay in force, and come into force, whatever one asks for: before it, after it, or with it at a
// start. Of its own rules some are closed.
func TestATenantCannotUseUpTheSets(t *testing.T) {
	greedy := manyRules("else", 0, 2*SetCount)
	deny := parseMesh("keep-out", `{"podSelector":{"matchLabels":{"app":"db"}},"ingress":{"defaultAction":"Allow","deny":[{"peers":[{"podSelector":{"matchLabels":{"app":"bad"}}}]}]}}`)
	for name, order := range map[string][][]*Model{
		"before": {{greedy}, {fromApp("db"), deny}}, "after": {{fromApp("db"), deny}, {greedy}}, "together": {{greedy, fromApp("db"), deny}},
	} {
		t.Run(name, func(t *testing.T) {
			w := smallWorld(greedy.rec)
			w.Policies = nil
			e, k := build(w)
			for _, policies := range order {
				for _, m := range policies {
					e.SetPolicy(m.key, m)
				}
				applyAll(e, k)
			}
			if !k.decide(tcp80(web, db, Ingress)).Passes() {
				t.Error("shop's policy allows db, and it is denied because of else's")
			}
			if !k.decide(tcp80(db, web, Ingress)).Passes() {
				t.Error("db keeps out app=bad alone, and is closed to everybody because of else's policy")
			}
			if len(e.roomProblems()) == 0 {
				t.Error("nobody says that else's rules have no room")
			}
			if e.held["else"] > SetCount/2 {
				t.Errorf("else holds %d of %d sets", e.held["else"], SetCount)
			}
			e.SetPolicy(greedy.key, nil)
			if applyAll(e, k); len(e.held) > 2 || e.bits.used != len(k.sets) || len(e.roomProblems()) != 0 {
				t.Errorf("after it is gone: %v held, %d used, %d in the kernel, problems %v", e.held, e.bits.used, len(k.sets), e.roomProblems())
			}
		})
	}
}

// A tenant that asks for what another one needs takes nothing from it: the set is the other's then.
func TestASharedSetIsWhoeverMayHaveIt(t *testing.T) {
	w := smallWorld(fromApp("db").rec)
	w.Policies = nil
	e, k := build(w)
	e.SetPolicy("NetworkPolicy/else/many", manyRules("else", 0, 2*SetCount))
	applyAll(e, k)
	same := func(namespace string) *Model {
		return Parse(&record.Policy{
			PolicyKind: KindMeshNetworkPolicy, Namespace: namespace, Name: "same",
			Spec: []byte(`{"podSelector":{},"ingress":{"allow":[{"peers":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"db"}}}]}]}}`),
		})
	}
	for _, ns := range []string{"else", "shop"} {
		e.SetPolicy(same(ns).key, same(ns))
		applyAll(e, k)
	}
	if !k.decide(tcp80(web, db, Ingress)).Passes() {
		t.Error("shop's policy allows db, and it is denied because else asked for the same first")
	}
}

// Selectors that tell everybody apart must not leave pods without a class that no policy is about.
func TestATenantCannotUseUpTheClasses(t *testing.T) {
	const pods, selectors = 2048, 11
	limits := roomy
	limits.Classes = sharedClasses
	w := smallWorld(fromApp("db").rec)
	w.Policies = nil
	for i := range uint32(pods) {
		w.Identities[identity.Of(1, uint16(1000+i))] = pod("east", "shop", "app", fmt.Sprint("app-", i))
	}
	e, k := NewEngine(Config{Cluster: w.Cluster, Limits: limits}), newKernel()
	load(e, w, map[uint32]bool{web: true, other: true})
	applyAll(e, k)
	var rules []string
	for bit := range selectors {
		var half []string
		for i := range pods {
			if i>>bit&1 == 1 {
				half = append(half, fmt.Sprintf(`"app-%d"`, i))
			}
		}
		rules = append(rules, fmt.Sprintf(`{"from":[{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":[%s]}]}}]}`, strings.Join(half, ",")))
	}
	m := Parse(&record.Policy{
		PolicyKind: KindNetworkPolicy, Namespace: "else", Name: "split",
		Spec: fmt.Appendf(nil, `{"podSelector":{},"ingress":[%s]}`, strings.Join(rules, ",")),
	})
	e.SetPolicy(m.key, m)
	applyAll(e, k)
	for i := range uint32(pods) {
		if !k.decide(tcp80(web, identity.Of(1, uint16(1000+i)), Ingress)).Passes() {
			t.Fatalf("a pod that no policy selects is closed to app-%d by a policy of else", i)
		}
	}
	if len(e.roomProblems()) == 0 {
		t.Error("nobody says that else's rules have no room")
	}
	if room := e.classes.pool.room(); room < limits.Classes/4 {
		t.Errorf("%d classes are left for new identities, want a quarter of %d", room, limits.Classes)
	}
}
