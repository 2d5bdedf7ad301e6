// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// TestIncrementalEqualsFromScratch drives a State through random changes with flushes in between, and compares what a
// receiver of all deltas has with what a State that saw only the end gives.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		s, v := NewState("v1"), newViews()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t, s)
			if rapid.Bool().Draw(t, "flush") {
				v.take(s.Flush())
			}
		}
		v.take(s.Flush())

		fresh, want := NewState("v1"), newViews()
		w.replay(fresh)
		want.take(fresh.Flush())
		if diff := cmp.Diff(want.local, v.local, protocmp.Transform()); diff != "" {
			t.Fatalf("local view (-from scratch +incremental):\n%s", diff)
		}
		if diff := cmp.Diff(want.published, v.published); diff != "" {
			t.Fatalf("published view (-from scratch +incremental):\n%s", diff)
		}
		if diff := cmp.Diff(s.Published(), v.published); diff != "" {
			t.Fatalf("Published() (-method +deltas):\n%s", diff)
		}
		if diff := cmp.Diff(fresh.Unnumbered(), s.Unnumbered()); diff != "" {
			t.Fatalf("Unnumbered (-from scratch +incremental):\n%s", diff)
		}
	})
}

// world is the objects as they are.
type world struct {
	mesh       *v1alpha1.ClusterMeshSpec
	pods       map[string]*corev1.Pod
	namespaces map[string]map[string]string
	services   map[string]*corev1.Service
	slices     map[string]*discoveryv1.EndpointSlice
	identities map[uint32]map[string]string
	nodes      map[string]*corev1.Node
	policies   map[string]*Policy
	owners     map[string]*Owner
	modes      map[string]record.NamespaceMode
}

func newWorld() *world {
	return &world{
		pods: map[string]*corev1.Pod{}, namespaces: map[string]map[string]string{}, services: map[string]*corev1.Service{},
		slices: map[string]*discoveryv1.EndpointSlice{}, identities: map[uint32]map[string]string{}, nodes: map[string]*corev1.Node{},
		policies: map[string]*Policy{}, owners: map[string]*Owner{}, modes: map[string]record.NamespaceMode{},
	}
}

func (w *world) step(t *rapid.T, s *State) {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
	gone := rapid.IntRange(0, 3).Draw(t, "gone") == 0
	switch rapid.SampledFrom([]string{"mesh", "pod", "namespace", "service", "slice", "identity", "allocate", "node", "policy", "owner", "mode"}).Draw(t, "what") {
	case "mesh":
		w.mesh = testMesh()
		w.mesh.ClusterName = rapid.SampledFrom([]string{"east", "west"}).Draw(t, "cluster")
		w.mesh.Policy.Mode = rapid.SampledFrom([]v1alpha1.PolicyMode{"", v1alpha1.PolicyEnforce, v1alpha1.PolicyAudit}).Draw(t, "mode")
		w.mesh.Services.DefaultExport = rapid.SampledFrom([]string{"Annotated", "None"}).Draw(t, "export")
		s.SetMesh(w.mesh)
	case "pod":
		var p *corev1.Pod
		if !gone {
			p = testPod(name, rapid.SampledFrom([]string{"", "10.1.1.1", "172.16.0.1"}).Draw(t, "ip"),
				map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "app")})
			p.Spec.HostNetwork = rapid.IntRange(0, 5).Draw(t, "host") == 0
		}
		setOrDelete(w.pods, name, p)
		s.SetPod("shop", name, p)
	case "policy":
		if gone {
			delete(w.policies, name)
			s.RemovePolicy(v1alpha1.KindMeshNetworkPolicy, "shop", name)
			return
		}
		p := Policy{Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: name, Labels: map[string]string{
			labelKustomizationName: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "applied by"), labelKustomizationNamespace: "flux-system",
		}}
		w.policies[name] = &p
		s.SetPolicy(p)
	case "owner":
		var o *Owner
		if !gone {
			o = &Owner{Revision: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "revision"), Policies: map[PolicyName]Applied{}}
			for _, listed := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, "listed") {
				o.Policies[PolicyName{v1alpha1.KindMeshNetworkPolicy, "shop", listed}] = Applied{}
			}
		}
		setOrDelete(w.owners, name, o)
		s.SetOwner(OwnerName{OwnerKustomization, "flux-system", name}, o)
	case "namespace":
		labels := map[string]string{"team": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "team")}
		if gone {
			delete(w.namespaces, "shop")
		} else {
			w.namespaces["shop"] = labels
		}
		s.SetNamespace("shop", labels, gone)
	case "mode":
		namespace := rapid.SampledFrom([]string{"shop", "other"}).Draw(t, "mode of")
		w.modes[namespace] = rapid.SampledFrom([]record.NamespaceMode{{}, {Audit: true}, {Problem: "a typo"}}).Draw(t, "mode")
		s.SetNamespaceMode(namespace, w.modes[namespace])
	case "service":
		var svc *corev1.Service
		if !gone {
			svc = testService(name, map[string]string{
				v1alpha1.AnnotationGlobal: rapid.SampledFrom([]string{"true", "false"}).Draw(t, "global"),
				v1alpha1.AnnotationShared: rapid.SampledFrom([]string{"true", "false"}).Draw(t, "shared"),
			})
		}
		setOrDelete(w.services, name, svc)
		s.SetService("shop", name, svc)
	case "slice":
		var eps *discoveryv1.EndpointSlice
		if !gone {
			var addrs []string
			for i := range rapid.SampledFrom([]int{1, 8, 9, 10, 300}).Draw(t, "backends") {
				addrs = append(addrs, fmt.Sprintf("10.1.%d.%d", i/200, i%200))
			}
			eps = testSlice(name, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of"), addrs...)
		}
		setOrDelete(w.slices, name, eps)
		s.SetSlice("shop", name, eps)
	case "identity":
		for n := range w.identities {
			if gone {
				delete(w.identities, n)
				s.SetIdentity(n, nil)
				break
			}
		}
	case "allocate":
		for _, labels := range s.Unnumbered() {
			n := uint32(1<<16 | 256 + rapid.IntRange(0, 9).Draw(t, "number"))
			if _, taken := w.identities[n]; !taken {
				w.identities[n] = labels
				s.SetIdentity(n, labels)
			}
		}
	case "node":
		var n *corev1.Node
		if !gone {
			n = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 3).Draw(t, "address"))},
			}}}
		}
		setOrDelete(w.nodes, name, n)
		s.SetNode(name, n)
	}
}

func (w *world) replay(s *State) {
	for name, o := range w.owners {
		s.SetOwner(OwnerName{OwnerKustomization, "flux-system", name}, o)
	}
	for name, says := range w.modes {
		s.SetNamespaceMode(name, says)
	}
	for _, p := range w.policies {
		s.SetPolicy(*p)
	}
	for n, labels := range w.identities {
		s.SetIdentity(n, labels)
	}
	for name, eps := range w.slices {
		s.SetSlice("shop", name, eps)
	}
	for name, p := range w.pods {
		s.SetPod("shop", name, p)
	}
	for name, labels := range w.namespaces {
		s.SetNamespace(name, labels, false)
	}
	for name, svc := range w.services {
		s.SetService("shop", name, svc)
	}
	for name, n := range w.nodes {
		s.SetNode(name, n)
	}
	if w.mesh != nil {
		s.SetMesh(w.mesh)
	}
}
