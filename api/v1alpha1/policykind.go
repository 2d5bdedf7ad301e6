// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
)

// Names of the policy kinds, as they are in objects, in records and in inventories.
const (
	KindNetworkPolicy            = "NetworkPolicy"
	KindMeshNetworkPolicy        = "MeshNetworkPolicy"
	KindClusterMeshNetworkPolicy = "ClusterMeshNetworkPolicy"
	KindClusterNetworkPolicy     = "ClusterNetworkPolicy"

	KindCiliumNetworkPolicy            = "CiliumNetworkPolicy"
	KindCiliumClusterwideNetworkPolicy = "CiliumClusterwideNetworkPolicy"
)

// PolicyObject is an object of any policy kind.
// +kubebuilder:object:generate=false
type PolicyObject interface {
	metav1.Object
	runtime.Object
}

// PolicyKind describes a kind of object that policies are written in. Whoever handles policies of every kind reads
// PolicyKinds: a new dialect is described here and compiled in mesh/policy.
// +kubebuilder:object:generate=false
type PolicyKind struct {
	Name         string
	GroupVersion schema.GroupVersion
	Namespaced   bool
	// CRD names the definition of a kind that is others' and may not be installed; empty for kinds that are always there.
	CRD string
	// New makes an empty object.
	New func() PolicyObject
	// Spec gives an object's spec, nil if the object is of another kind.
	Spec func(PolicyObject) any
	// Status gives the part of an object that says where it is in force; nil for kinds whose status isn't ours.
	Status func(PolicyObject) *MeshPolicyStatus
	// OnRequest says that a kind is read only where the operator is told to: somebody else may enforce its policies.
	OnRequest bool
	// Timeless says that conditions have no observedGeneration in the kind's definition.
	Timeless bool
	// Conditions gives those of an object of others' that has room for one of ours; nil for other kinds.
	Conditions func(PolicyObject) *[]metav1.Condition

	is func(PolicyObject) bool
}

// policyKinds are few enough to search.
var policyKinds = []PolicyKind{
	policyKind(KindNetworkPolicy, networkingv1.SchemeGroupVersion, true,
		func(p *networkingv1.NetworkPolicy) any { return p.Spec }, nil),
	policyKind(KindMeshNetworkPolicy, GroupVersion, true,
		func(p *MeshNetworkPolicy) any { return p.Spec },
		func(p *MeshNetworkPolicy) *MeshPolicyStatus { return &p.Status }),
	policyKind(KindClusterMeshNetworkPolicy, GroupVersion, false,
		func(p *ClusterMeshNetworkPolicy) any { return p.Spec },
		func(p *ClusterMeshNetworkPolicy) *MeshPolicyStatus { return &p.Status }),
	others(policyKind(KindClusterNetworkPolicy, schema.GroupVersion(npav1alpha2.GroupVersion), false,
		func(p *npav1alpha2.ClusterNetworkPolicy) any { return p.Spec }, nil),
		"clusternetworkpolicies.policy.networking.k8s.io",
		func(p *npav1alpha2.ClusterNetworkPolicy) *[]metav1.Condition { return &p.Status.Conditions }),
	ciliums(others(policyKind(KindCiliumNetworkPolicy, ciliumv2.GroupVersion, true,
		func(p *ciliumv2.CiliumNetworkPolicy) any { return p.Specification }, nil),
		"ciliumnetworkpolicies.cilium.io",
		func(p *ciliumv2.CiliumNetworkPolicy) *[]metav1.Condition { return &p.Status.Conditions })),
	ciliums(others(policyKind(KindCiliumClusterwideNetworkPolicy, ciliumv2.GroupVersion, false,
		func(p *ciliumv2.CiliumClusterwideNetworkPolicy) any { return p.Specification }, nil),
		"ciliumclusterwidenetworkpolicies.cilium.io",
		func(p *ciliumv2.CiliumClusterwideNetworkPolicy) *[]metav1.Condition { return &p.Status.Conditions })),
}

// PolicyKinds lists the kinds of policies that Fairlead reads, in a stable order.
func PolicyKinds() []PolicyKind { return policyKinds[:len(policyKinds):len(policyKinds)] }

// PolicyKindNamed gives the policy kind of a name; false if there is none.
func PolicyKindNamed(name string) (PolicyKind, bool) {
	for _, k := range policyKinds {
		if k.Name == name {
			return k, true
		}
	}
	return PolicyKind{}, false
}

// PolicyKindOf gives the kind of an object by its Go type, for the typed objects of a cache have no kind of their own;
// false if it is no policy.
func PolicyKindOf(o PolicyObject) (PolicyKind, bool) {
	for _, k := range policyKinds {
		if k.is(o) {
			return k, true
		}
	}
	return PolicyKind{}, false
}

// others completes a kind that is not ours.
func others[P PolicyObject](k PolicyKind, crd string, conditions func(P) *[]metav1.Condition) PolicyKind {
	k.CRD = crd
	k.Conditions = func(o PolicyObject) *[]metav1.Condition {
		if p, ok := o.(P); ok {
			return conditions(p)
		}
		return nil
	}
	return k
}

// ciliums completes a kind of Cilium's.
func ciliums(k PolicyKind) PolicyKind {
	k.OnRequest, k.Timeless = true, true
	return k
}

func policyKind[T any, P interface {
	*T
	PolicyObject
}](name string, gv schema.GroupVersion, namespaced bool, spec func(P) any, status func(P) *MeshPolicyStatus) PolicyKind {
	k := PolicyKind{
		Name: name, GroupVersion: gv, Namespaced: namespaced,
		New: func() PolicyObject { return P(new(T)) },
		Spec: func(o PolicyObject) any {
			if p, ok := o.(P); ok {
				return spec(p)
			}
			return nil
		},
		is: func(o PolicyObject) bool { _, ok := o.(P); return ok },
	}
	if status != nil {
		k.Status = func(o PolicyObject) *MeshPolicyStatus {
			if p, ok := o.(P); ok {
				return status(p)
			}
			return nil
		}
	}
	return k
}
