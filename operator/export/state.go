// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package export turns what Kubernetes knows of this cluster into the records that agents and other clusters get.
//
//	observe ── Set… ──► State ── Flush ──► Delta{Local, Published, Warnings}
//
// Each object makes at most one record. State remembers which records a change of an object can touch, so that a pod
// that comes or goes costs one record, and Flush rebuilds just those. Two views come out: Local goes to this cluster's
// agents and holds everything; Published goes to the shared etcd and holds what other clusters use: of services only
// the global ones, and no policies, because no cluster takes policies from another.
//
// The package is pure: no clock, no goroutine, no request. A State must not be used by two goroutines at once.
package export

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

type nsName struct{ namespace, name string }

// ref names the object that a record is made from.
type ref struct {
	kind      string // a record kind
	policy    string // the policy's kind, for policies
	namespace string
	name      string
	part      uint32 // of an EndpointSlice that travels in parts; 0: the whole
}

// podState is a pod and the label set its identity stands for.
type podState struct {
	pod       *corev1.Pod
	labels    map[string]string
	canonical string
}

// State is everything of this cluster that records are made from.
type State struct {
	version string
	mesh    *v1alpha1.ClusterMeshSpec
	claim   *record.Claim

	pods       map[nsName]*podState
	namespaces map[string]map[string]string
	modes      map[string]record.NamespaceMode // of namespaces that say something
	nodes      map[string]*corev1.Node
	meshNodes  map[string]*v1alpha1.MeshNode
	services   map[nsName]*corev1.Service
	slices     map[nsName]*discoveryv1.EndpointSlice
	policies   map[ref]Policy
	owners     map[OwnerName]*Owner
	proofs     map[ref]proof // of policies from a PolicySource
	doubted    doubted
	identities map[uint32]map[string]string

	podsByNamespace map[string]map[nsName]bool
	podsByLabels    map[string]map[nsName]bool // canonical label set → pods that have it
	slicesByService map[nsName]map[nsName]bool
	policiesByClaim map[OwnerName]map[ref]bool // owner → policies that claim to come from it
	policiesIn      map[string]map[ref]bool    // namespace → its own policies
	numbers         map[string]uint32          // canonical label set → number

	dirty map[ref]bool
	built map[ref]*built
	cut   cut // of the EndpointSlice at hand
}

// NewState makes an empty State. version is the operator's, for the cluster's own record.
func NewState(version string) *State {
	return &State{
		version:         version,
		pods:            map[nsName]*podState{},
		namespaces:      map[string]map[string]string{},
		modes:           map[string]record.NamespaceMode{},
		nodes:           map[string]*corev1.Node{},
		meshNodes:       map[string]*v1alpha1.MeshNode{},
		services:        map[nsName]*corev1.Service{},
		slices:          map[nsName]*discoveryv1.EndpointSlice{},
		policies:        map[ref]Policy{},
		owners:          map[OwnerName]*Owner{},
		proofs:          map[ref]proof{},
		doubted:         newDoubted(),
		identities:      map[uint32]map[string]string{},
		podsByNamespace: map[string]map[nsName]bool{},
		podsByLabels:    map[string]map[nsName]bool{},
		slicesByService: map[nsName]map[nsName]bool{},
		policiesByClaim: map[OwnerName]map[ref]bool{},
		policiesIn:      map[string]map[ref]bool{},
		numbers:         map[string]uint32{},
		dirty:           map[ref]bool{},
		built:           map[ref]*built{},
	}
}

// SetMesh sets this cluster's membership; nil if it has none. Every record carries the cluster's name, so all are made
// anew.
func (s *State) SetMesh(m *v1alpha1.ClusterMeshSpec) {
	s.mesh, s.claim = m, claimOf(m, s.version)
	s.touch(ref{kind: record.KindCluster})
	for k := range s.pods {
		s.relabel(k)
	}
	s.rebuildNumbers()
	for name := range s.nodes {
		s.touch(ref{kind: record.KindNode, name: name})
	}
	for k := range s.services {
		s.touch(ref{kind: record.KindService, namespace: k.namespace, name: k.name})
	}
	for k, eps := range s.slices {
		s.touchSlice(k, eps)
	}
	for r := range s.policies {
		s.touch(r)
	}
	for n := range s.identities {
		s.touch(identityRef(n))
	}
}

// CheckMesh says why a membership can't be used: no other cluster would take it.
func CheckMesh(m *v1alpha1.ClusterMeshSpec) error {
	_, err := record.ClaimFrom(ClusterRecord(m, "").GetClusterInfo())
	return err
}

// claimOf is what other clusters will hold our records against.
func claimOf(m *v1alpha1.ClusterMeshSpec, version string) *record.Claim {
	if m == nil {
		return nil
	}
	c, err := record.ClaimFrom(ClusterRecord(m, version).GetClusterInfo())
	if err != nil {
		return nil
	}
	return &c
}

// SetPod sets or (nil) removes a pod.
func (s *State) SetPod(namespace, name string, pod *corev1.Pod) {
	k := nsName{namespace, name}
	if was := s.pods[k]; was != nil {
		drop(s.podsByNamespace, namespace, k)
		drop(s.podsByLabels, was.canonical, k)
		delete(s.pods, k)
	}
	s.touch(ref{kind: record.KindEndpoint, namespace: namespace, name: name})
	if pod == nil || pod.Spec.HostNetwork {
		return
	}
	s.pods[k] = &podState{pod: pod}
	put(s.podsByNamespace, namespace, k)
	s.relabel(k)
}

// SetNamespace sets a namespace's labels; gone removes it.
func (s *State) SetNamespace(name string, labels map[string]string, gone bool) {
	if gone {
		delete(s.namespaces, name)
	} else {
		if labels == nil {
			labels = map[string]string{}
		}
		s.namespaces[name] = labels
	}
	for k := range s.podsByNamespace[name] {
		s.relabel(k)
	}
}

// SetNamespaceMode sets what a namespace says of the mode of its own policies; the zero value: nothing. It costs these.
func (s *State) SetNamespaceMode(name string, says record.NamespaceMode) {
	if s.modes[name] == says {
		return
	}
	s.modes[name] = says
	if says == (record.NamespaceMode{}) {
		delete(s.modes, name)
	}
	for r := range s.policiesIn[name] {
		s.touch(r)
	}
}

// relabel computes the label set of a pod's identity anew. A pod whose namespace isn't known has none yet.
func (s *State) relabel(k nsName) {
	p := s.pods[k]
	drop(s.podsByLabels, p.canonical, k)
	p.labels, p.canonical = nil, ""
	nsLabels, known := s.namespaces[k.namespace]
	if s.mesh != nil && known {
		p.labels = identity.PodLabels(s.mesh.ClusterName, k.namespace, p.pod.Spec.ServiceAccountName, p.pod.Labels, nsLabels)
		p.canonical = identity.Canonical(p.labels)
		put(s.podsByLabels, p.canonical, k)
	}
	s.touch(ref{kind: record.KindEndpoint, namespace: k.namespace, name: k.name})
}

// SetNode sets or (nil) removes a node.
func (s *State) SetNode(name string, n *corev1.Node) {
	setOrDelete(s.nodes, name, n)
	s.touch(ref{kind: record.KindNode, name: name})
}

// SetMeshNode sets or (nil) removes what a node's agent reported.
func (s *State) SetMeshNode(name string, n *v1alpha1.MeshNode) {
	setOrDelete(s.meshNodes, name, n)
	s.touch(ref{kind: record.KindNode, name: name})
}

// SetService sets or (nil) removes a Service.
func (s *State) SetService(namespace, name string, svc *corev1.Service) {
	k := nsName{namespace, name}
	setOrDelete(s.services, k, svc)
	s.touch(ref{kind: record.KindService, namespace: namespace, name: name})
	for slice := range s.slicesByService[k] {
		s.touchSlice(slice, s.slices[slice])
	}
}

// SetSlice sets or (nil) removes an EndpointSlice.
func (s *State) SetSlice(namespace, name string, eps *discoveryv1.EndpointSlice) {
	k := nsName{namespace, name}
	if was := s.slices[k]; was != nil {
		drop(s.slicesByService, nsName{namespace, was.Labels[discoveryv1.LabelServiceName]}, k)
		s.touchSlice(k, was)
	}
	setOrDelete(s.slices, k, eps)
	if eps != nil {
		put(s.slicesByService, nsName{namespace, eps.Labels[discoveryv1.LabelServiceName]}, k)
		s.touchSlice(k, eps)
	}
}

// SetPolicy sets a policy.
func (s *State) SetPolicy(p Policy) {
	r := PolicyName{p.Kind, p.Namespace, p.Name}.ref()
	s.dropPolicy(r)
	s.policies[r] = p
	put(s.policiesIn, p.Namespace, r)
	for _, c := range claimsOf(p) {
		put(s.policiesByClaim, c.owner, r)
	}
}

// RemovePolicy removes a policy.
func (s *State) RemovePolicy(kind, namespace, name string) {
	r := PolicyName{kind, namespace, name}.ref()
	s.dropPolicy(r)
	delete(s.proofs, r)
	s.doubted.set(r, false)
}

func (s *State) dropPolicy(r ref) {
	for _, c := range claimsOf(s.policies[r]) {
		drop(s.policiesByClaim, c.owner, r)
	}
	delete(s.policies, r)
	drop(s.policiesIn, r.namespace, r)
	s.touch(r)
}

func (s *State) touch(r ref) { s.dirty[r] = true }

func setOrDelete[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
		return
	}
	m[k] = v
}

func put[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]bool{}
	}
	m[k][v] = true
}

func drop[K, V comparable](m map[K]map[V]bool, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
