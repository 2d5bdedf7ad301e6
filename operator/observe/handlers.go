// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// feed is a kind of object and what its changes do to the state.
type feed struct {
	object  client.Object
	handler cache.ResourceEventHandler
}

// on makes a handler for one kind: set for objects that are there, gone for those that went.
func on[T client.Object](o *Observer, set, gone func(*export.State, T)) cache.ResourceEventHandler {
	put := func(obj any) {
		if t, ok := obj.(T); ok {
			o.change(func(s *export.State) { set(s, t) })
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, obj any) { put(obj) },
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			if t, ok := obj.(T); ok {
				o.change(func(s *export.State) { gone(s, t) })
			}
		},
	}
}

// feeds lists every kind that records are made from.
//
// +kubebuilder:rbac:groups="",resources=pods;nodes;namespaces;services,verbs=get;list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairlead.dev,resources=clustermeshes;meshidentities;meshnodes;meshnetworkpolicies;clustermeshnetworkpolicies,verbs=get;list;watch
func (o *Observer) feeds() []feed {
	feeds := []feed{
		{&v1alpha1.ClusterMesh{}, on(o, o.setMesh, o.keepMesh)},
		{&corev1.Namespace{}, on(o, setNamespace, removeNamespace)},
		{&v1alpha1.MeshIdentity{}, on(o, setIdentity, removeIdentity)},
		{&corev1.Pod{}, on(o,
			func(s *export.State, p *corev1.Pod) { s.SetPod(p.Namespace, p.Name, p) },
			func(s *export.State, p *corev1.Pod) { s.SetPod(p.Namespace, p.Name, nil) })},
		{&corev1.Node{}, on(o,
			func(s *export.State, n *corev1.Node) { s.SetNode(n.Name, n) },
			func(s *export.State, n *corev1.Node) { s.SetNode(n.Name, nil) })},
		{&v1alpha1.MeshNode{}, on(o,
			func(s *export.State, n *v1alpha1.MeshNode) { s.SetMeshNode(n.Name, n) },
			func(s *export.State, n *v1alpha1.MeshNode) { s.SetMeshNode(n.Name, nil) })},
		{&corev1.Service{}, on(o,
			func(s *export.State, v *corev1.Service) { s.SetService(v.Namespace, v.Name, v) },
			func(s *export.State, v *corev1.Service) { s.SetService(v.Namespace, v.Name, nil) })},
		{&discoveryv1.EndpointSlice{}, on(o,
			func(s *export.State, e *discoveryv1.EndpointSlice) { s.SetSlice(e.Namespace, e.Name, e) },
			func(s *export.State, e *discoveryv1.EndpointSlice) { s.SetSlice(e.Namespace, e.Name, nil) })},
	}
	feeds = append(feeds, feed{&v1alpha1.PolicySource{}, o.sourceHandler()})
	for _, kind := range o.kinds {
		feeds = append(feeds, o.policies(kind))
	}
	return feeds
}

func (o *Observer) policies(kind v1alpha1.PolicyKind) feed {
	return feed{kind.New(), on(o,
		func(s *export.State, p v1alpha1.PolicyObject) { s.SetPolicy(export.PolicyOf(kind, p)) },
		func(s *export.State, p v1alpha1.PolicyObject) {
			s.RemovePolicy(kind.Name, p.GetNamespace(), p.GetName())
		})}
}

// setMesh takes a ClusterMesh; its status changes often and touches no record.
func (o *Observer) setMesh(s *export.State, m *v1alpha1.ClusterMesh) {
	if o.mesh != nil && equality.Semantic.DeepEqual(*o.mesh, m.Spec) {
		return
	}
	if err := export.CheckMesh(&m.Spec); err != nil {
		// Without a claim of its own this cluster has no identities and judges no other: everything would be withdrawn.
		o.log.Error("the ClusterMesh can't be used as it is; what was known before stays in force", "error", err, "joined", o.mesh != nil)
		return
	}
	o.mesh = m.Spec.DeepCopy()
	s.SetMesh(o.mesh)
}

// keepMesh goes on with what was known when the ClusterMesh is deleted: taking every record from the agents would stop
// all enforcement because of one kubectl delete.
func (o *Observer) keepMesh(*export.State, *v1alpha1.ClusterMesh) {
	o.log.Warn("the ClusterMesh was deleted: the exchange with other clusters stops, agents keep what they have")
}

func setNamespace(s *export.State, n *corev1.Namespace) {
	s.SetNamespace(n.Name, n.Labels, false)
	s.SetNamespaceMode(n.Name, record.ReadNamespaceMode(n.Name, n.Labels, n.Annotations))
}

func removeNamespace(s *export.State, n *corev1.Namespace) {
	s.SetNamespace(n.Name, nil, true)
	s.SetNamespaceMode(n.Name, record.NamespaceMode{})
}

func setIdentity(s *export.State, m *v1alpha1.MeshIdentity) {
	if n, err := export.IdentityNumber(m.Name); err == nil {
		labels := m.Spec.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		s.SetIdentity(n, labels)
	}
}

func removeIdentity(s *export.State, m *v1alpha1.MeshIdentity) {
	if n, err := export.IdentityNumber(m.Name); err == nil {
		s.SetIdentity(n, nil)
	}
}
