// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// A ClusterNetworkPolicy gets one condition of ours, which names what nodes can't enforce; what others wrote stays.
func TestAForeignPolicyGetsACondition(t *testing.T) {
	p := &npav1alpha2.ClusterNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "floor", UID: "u1", Generation: 1},
		Status: npav1alpha2.ClusterNetworkPolicyStatus{Conditions: []metav1.Condition{{
			Type: "Ready-In-Zone-a", Status: metav1.ConditionTrue, Reason: "SetupSucceeded", LastTransitionTime: metav1.Unix(1, 0),
		}}},
	}
	d := newDesk(t, p)
	d.ledger.setNode("n1", true)
	key := policyRef{kind: v1alpha1.KindClusterNetworkPolicy, name: "floor"}.key("east")
	d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{{Key: key, Record: &recordv1.Record{
		Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{Kind: v1alpha1.KindClusterNetworkPolicy, Name: "floor", Uid: "u1", Generation: 1,
			Provenance: &recordv1.Provenance{Revision: "main@sha1:1"},
		}},
	}}}})
	content := (&record.Policy{UID: "u1", Generation: 1}).Content()
	for _, tt := range []struct {
		what, problem, warning, want string
	}{
		{"enforced", "", "", "True Ready: in force on all 1 nodes"},
		{"with a peer that can't be", "", "spec.egress[0].to[0]: domainNames can't be enforced yet; the rule accepts nobody", "True Warning: in force on all 1 nodes, and not quite as written: spec.egress[0].to[0]: domainNames can't be enforced yet; the rule accepts nobody"},
		{"broken", "spec.tier: is needed", "", "False NodesFailing: n1: east/policies/ClusterNetworkPolicy/-/floor: spec.tier: is needed"},
	} {
		d.ledger.setAgent("n1", reporting("n1", v1alpha1.NodePolicy{
			Key: key, Revision: "main@sha1:1", Content: content, Error: tt.problem, Warning: tt.warning,
		}))
		d.wantPass(tt.what, 1)
		got := &npav1alpha2.ClusterNetworkPolicy{}
		if err := d.kube.Get(t.Context(), client.ObjectKey{Name: "floor"}, got); err != nil {
			t.Fatal(err)
		}
		if line(got.Status.Conditions, v1alpha1.ConditionPolicyReady) != tt.want || len(got.Status.Conditions) != 2 {
			t.Errorf("%s: %+v", tt.what, got.Status.Conditions)
		}
	}
}

// Cilium's definition has no room for a condition's generation: what the API server drops must not be written again and again.
func TestACiliumPolicyGetsAConditionWithoutGeneration(t *testing.T) {
	p := &ciliumv2.CiliumNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: "u1", Generation: 3}}
	d := newDesk(t, p)
	d.ledger.setNode("n1", true)
	key := policyRef{kind: v1alpha1.KindCiliumNetworkPolicy, namespace: "shop", name: "api"}.key("east")
	d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{{Key: key, Record: &recordv1.Record{
		Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{Kind: v1alpha1.KindCiliumNetworkPolicy, Namespace: "shop", Name: "api", Uid: "u1", Generation: 3}},
	}}}})
	d.ledger.setAgent("n1", reporting("n1", v1alpha1.NodePolicy{
		Key: key, Content: (&record.Policy{UID: "u1", Generation: 3}).Content(), Warning: "spec.egress[0].toFQDNs: is not enforced yet; it allows nobody",
	}))
	d.wantPass("enforced", 1)
	got := &ciliumv2.CiliumNetworkPolicy{}
	if err := d.kube.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "api"}, got); err != nil {
		t.Fatal(err)
	}
	const want = "True Warning: in force on all 1 nodes, and not quite as written: spec.egress[0].toFQDNs: is not enforced yet; it allows nobody"
	if line(got.Status.Conditions, v1alpha1.ConditionPolicyReady) != want || got.Status.Conditions[0].ObservedGeneration != 0 {
		t.Errorf("%+v", got.Status.Conditions)
	}
}
