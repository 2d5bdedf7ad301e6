// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func policyObjects() []client.Object {
	pod := func(name, ip string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}},
			Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: ip}}},
		}
	}
	id := func(number, app string) *v1alpha1.MeshIdentity {
		return &v1alpha1.MeshIdentity{ObjectMeta: metav1.ObjectMeta{Name: number}, Spec: v1alpha1.MeshIdentitySpec{
			Labels: identity.PodLabels("east", "shop", "", map[string]string{"app": app}, map[string]string{"team": "a"})}}
	}
	port := int32(8080)
	reported := metav1.NewTime(time.Unix(1000, 0))
	isolated := networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "api"}}}
	spec, err := json.Marshal(isolated)
	if err != nil {
		panic(err)
	}
	inForce := (&record.Policy{UID: "u1", Spec: spec}).Content()
	return []client.Object{
		&v1alpha1.ClusterMesh{ObjectMeta: metav1.ObjectMeta{Name: "mesh"}, Spec: v1alpha1.ClusterMeshSpec{ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}}},
		&v1alpha1.MeshCluster{ObjectMeta: metav1.ObjectMeta{Name: "west"}, Spec: v1alpha1.MeshClusterSpec{ClusterID: 2, PodCIDRs: []string{"10.2.0.0/16"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}},
		pod("web", "10.1.0.1"), pod("api", "10.1.0.2"), id("65792", "web"), id("65793", "api"),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.9"}, Ports: []corev1.ServicePort{{Port: 80}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}}, AddressType: discoveryv1.AddressTypeIPv4,
			Ports: []discoveryv1.EndpointPort{{Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.2"}}},
		},
		&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{v1alpha1.LabelSourceName: "git", v1alpha1.LabelSourceNamespace: "ops"},
				Annotations: map[string]string{v1alpha1.AnnotationSourcePath: "forged.yaml", v1alpha1.AnnotationSourceRevision: "main@sha1:9"}},
			Spec: isolated,
		},
		&v1alpha1.PolicySource{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "git"}, Status: v1alpha1.PolicySourceStatus{
			InventoryURL: "https://git/policies", Inventory: []v1alpha1.InventoryEntry{
				{Kind: "NetworkPolicy", Namespace: "shop", Name: "api", Path: "api.yaml", UID: "u1", Content: record.SpecContent(spec)},
			},
		}},
		&v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: v1alpha1.MeshNodeStatus{LastReportTime: &reported, Policies: []v1alpha1.NodePolicy{
			{Key: "east/policies/NetworkPolicy/shop/api", Revision: "main@sha1:1", Content: inForce},
		}}},
	}
}

func TestPolicyReadsWhatExplainNeeds(t *testing.T) {
	c, err := readPolicy(t.Context(), api(t, interceptor.Funcs{}, policyObjects()...), "ctx")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Missing) > 0 || len(c.Pods) != 2 || len(c.Nodes) != 1 || len(c.Policies) != 1 || c.Others["west"].Unused == "" {
		t.Fatalf("got %+v", c)
	}
	want := record.Provenance{Source: "ops/git", URL: "https://git/policies", Revision: "main@sha1:1", Path: "api.yaml"}
	if from := c.Policies[0].Record.Provenance; from != want {
		t.Errorf("provenance %+v, want %+v", from, want)
	}
	node := c.Nodes[0]
	if node.Enforces["NetworkPolicy/shop/api"].Revision != "main@sha1:1" || node.Addresses[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("node %+v", node)
	}
	m := &world.Mesh{Clusters: map[string]*world.Cluster{"east": c}}
	if err := m.Number(); err != nil {
		t.Fatal(err)
	}
	from, _ := explain.ParseEnd("shop/web")
	to, _ := explain.ParseTarget("svc/shop/api:80")
	r, err := explain.Explain(m, from, to)
	if err != nil || len(r.Connections) != 1 || r.Connections[0].To.Name != "shop/api" || r.Connections[0].Port != 8080 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Who may write a policy may write its labels and annotations: where it came from is what nodes and its owner say.
func TestProvenanceIsNotWhatThePolicyClaims(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(policy *networkingv1.NetworkPolicy, src *v1alpha1.PolicySource, node *v1alpha1.MeshNode)
		want   record.Provenance
	}{
		"no node names a revision": {func(_ *networkingv1.NetworkPolicy, _ *v1alpha1.PolicySource, node *v1alpha1.MeshNode) {
			node.Status.Policies[0].Revision = ""
		}, record.Provenance{}},
		"nodes enforce another state": {func(policy *networkingv1.NetworkPolicy, _ *v1alpha1.PolicySource, _ *v1alpha1.MeshNode) {
			policy.UID = "u2"
		}, record.Provenance{}},
		"the source applied something else": {func(_ *networkingv1.NetworkPolicy, src *v1alpha1.PolicySource, _ *v1alpha1.MeshNode) {
			src.Status.Inventory[0].Content = "other"
		}, record.Provenance{Revision: "main@sha1:1"}},
		"of a Kustomization": {func(policy *networkingv1.NetworkPolicy, _ *v1alpha1.PolicySource, _ *v1alpha1.MeshNode) {
			policy.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
		}, record.Provenance{Source: "Kustomization/flux-system/apps", Revision: "main@sha1:1", Path: "./apps"}},
		"of a Kustomization that doesn't list it": {func(policy *networkingv1.NetworkPolicy, _ *v1alpha1.PolicySource, _ *v1alpha1.MeshNode) {
			policy.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "else", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
		}, record.Provenance{Revision: "main@sha1:1"}},
	} {
		objects := []client.Object{kustomizationOf("apps", "shop_api_networking.k8s.io_NetworkPolicy"), kustomizationOf("else", "shop_web_networking.k8s.io_NetworkPolicy")}
		var policy *networkingv1.NetworkPolicy
		var src *v1alpha1.PolicySource
		var node *v1alpha1.MeshNode
		for _, o := range policyObjects() {
			switch o := o.(type) {
			case *networkingv1.NetworkPolicy:
				policy = o
			case *v1alpha1.PolicySource:
				src = o
			case *v1alpha1.MeshNode:
				node = o
			}
			objects = append(objects, o)
		}
		tt.change(policy, src, node)
		c, err := readPolicy(t.Context(), api(t, interceptor.Funcs{}, objects...), "ctx")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Policies[0].Record.Provenance; got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func kustomizationOf(name string, ids ...string) client.Object {
	var entries []any
	for _, id := range ids {
		entries = append(entries, map[string]any{"id": id, "v": "v1"})
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"namespace": "flux-system", "name": name},
		"spec":     map[string]any{"path": "./apps"},
		"status":   map[string]any{"inventory": map[string]any{"entries": entries}},
	}}
	u.SetGroupVersionKind(kustomizations)
	return u
}

func TestWhatMayNotBeReadIsMissing(t *testing.T) {
	c, err := readPolicy(t.Context(), api(t, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, is := list.(*networkingv1.NetworkPolicyList); is {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "networkpolicies"}, "", nil)
			}
			return c.List(ctx, list, opts...)
		},
	}, policyObjects()...), "ctx")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Missing) != 1 || !strings.Contains(c.Missing[0], "NetworkPolicy") {
		t.Errorf("missing %v", c.Missing)
	}
	if _, err := readPolicy(t.Context(), api(t, interceptor.Funcs{}), "ctx"); err == nil || !strings.Contains(err.Error(), "no member of a mesh") {
		t.Errorf("without a ClusterMesh: %v", err)
	}
}

// ClusterNetworkPolicies are read where their definition is installed; where it isn't, nothing is missing.
func TestClusterNetworkPoliciesNeedNotBeInstalled(t *testing.T) {
	cnp := &npav1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor"}, Spec: npav1alpha2.ClusterNetworkPolicySpec{
		Tier: npav1alpha2.BaselineTier, Priority: 7, Subject: npav1alpha2.ClusterNetworkPolicySubject{Namespaces: &metav1.LabelSelector{}},
		Ingress: []npav1alpha2.ClusterNetworkPolicyIngressRule{{
			Action: npav1alpha2.ClusterNetworkPolicyRuleActionDeny, From: []npav1alpha2.ClusterNetworkPolicyIngressPeer{{Namespaces: &metav1.LabelSelector{}}},
		}},
	}}
	c, err := readPolicy(t.Context(), api(t, interceptor.Funcs{}, append(policyObjects(), cnp)...), "ctx")
	if err != nil || len(c.Missing) > 0 || len(c.Policies) != 2 || c.Policies[0].Model.Key() != "ClusterNetworkPolicy/-/floor" || len(c.Policies[0].Model.Problems()) > 0 {
		t.Fatalf("got %+v, %v", c, err)
	}
	for _, tt := range []struct {
		list    client.ObjectList
		refusal error
		missing int
	}{
		{&npav1alpha2.ClusterNetworkPolicyList{}, &meta.NoKindMatchError{}, 0},
		{&npav1alpha2.ClusterNetworkPolicyList{}, apierrors.NewNotFound(schema.GroupResource{}, ""), 0},
		{&npav1alpha2.ClusterNetworkPolicyList{}, apierrors.NewForbidden(schema.GroupResource{}, "", nil), 1},
		{&v1alpha1.MeshNetworkPolicyList{}, &meta.NoKindMatchError{}, 1},
	} {
		c, err := readPolicy(t.Context(), api(t, interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				if reflect.TypeOf(list) == reflect.TypeOf(tt.list) {
					return tt.refusal
				}
				return c.List(ctx, list, opts...)
			},
		}, policyObjects()...), "ctx")
		if err != nil || len(c.Missing) != tt.missing {
			t.Errorf("%T, %v: missing %v, %v", tt.list, tt.refusal, c.Missing, err)
		}
	}
}
