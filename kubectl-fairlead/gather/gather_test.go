// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

func api(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.Client {
	t.Helper()
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
}

func TestReadFillsTheSnapshot(t *testing.T) {
	replicas := int32(2)
	c := api(t, interceptor.Funcs{},
		&v1alpha1.ClusterMesh{ObjectMeta: metav1.ObjectMeta{Name: "mesh"}, Spec: v1alpha1.ClusterMeshSpec{ClusterName: "east"}},
		&v1alpha1.MeshCluster{ObjectMeta: metav1.ObjectMeta{Name: "west"}},
		&v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: "east-1"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "east-1"}},
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}},
		&npav1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor"}},
		&appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: evaluate.Namespace, Name: "fairlead-operator"},
			Spec:       appsv1.DeploymentSpec{Replicas: &replicas},
			Status:     appsv1.DeploymentStatus{ReadyReplicas: 1},
		},
		&appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: evaluate.Namespace, Name: "fairlead-tunnel"},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, NumberReady: 2},
		},
	)
	var s evaluate.Snapshot
	if err := read(t.Context(), c, &s); err != nil {
		t.Fatal(err)
	}
	if s.Mesh == nil || s.Mesh.Spec.ClusterName != "east" || len(s.Clusters) != 1 || len(s.Nodes) != 1 || len(s.KubeNodes) != 1 || len(s.OtherPolicies) != 2 || len(s.Unread) != 0 {
		t.Errorf("got %+v", s)
	}
	if want := (evaluate.Workload{Found: true, Want: 2, Ready: 1}); s.Operator != want {
		t.Errorf("operator %+v, want %+v", s.Operator, want)
	}
	if want := (evaluate.Workload{Found: true, Want: 3, Ready: 2}); s.Tunnel != want {
		t.Errorf("tunnel %+v, want %+v", s.Tunnel, want)
	}
	if s.Agent.Found {
		t.Errorf("found agents that are not there: %+v", s.Agent)
	}
}

func TestARefusedKindIsNotedAndTheRestRead(t *testing.T) {
	c := api(t, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, nodes := list.(*corev1.NodeList); nodes {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", nil)
			}
			return c.List(ctx, list, opts...)
		},
	}, &v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: "east-1"}})
	var s evaluate.Snapshot
	if err := read(t.Context(), c, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Unread) != 1 || !strings.HasPrefix(s.Unread[0], "Nodes: ") || len(s.Nodes) != 1 {
		t.Errorf("unread %v, nodes %d", s.Unread, len(s.Nodes))
	}
}

func TestUnknownKindsMeanNotInstalled(t *testing.T) {
	c := api(t, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "fairlead.dev", Kind: "ClusterMesh"}}
		},
	})
	var s evaluate.Snapshot
	if err := read(t.Context(), c, &s); err != nil || !s.NotInstalled {
		t.Errorf("not installed: %t, error %v", s.NotInstalled, err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := Cluster(t.Context(), "nowhere", &rest.Config{Host: "https://127.0.0.1:1"})
	if s.Unreachable == "" || s.Context != "nowhere" {
		t.Errorf("got %+v", s)
	}
}

// Definitions of other projects' kinds needn't be installed; a refusal is another matter.
func TestPoliciesOfOthersMayBeMissing(t *testing.T) {
	for _, tt := range []struct {
		err    error
		unread int
	}{
		{&meta.NoKindMatchError{}, 0},
		{apierrors.NewNotFound(schema.GroupResource{}, ""), 0},
		{apierrors.NewForbidden(schema.GroupResource{}, "", nil), 1},
	} {
		c := api(t, interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
				if _, is := list.(*npav1alpha2.ClusterNetworkPolicyList); is {
					return tt.err
				}
				return c.List(ctx, list, opts...)
			},
		}, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}})
		var s evaluate.Snapshot
		if err := read(t.Context(), c, &s); err != nil || len(s.OtherPolicies) != 1 || len(s.Unread) != tt.unread {
			t.Errorf("%v: %d policies, unread %v, error %v", tt.err, len(s.OtherPolicies), s.Unread, err)
		}
	}
}
