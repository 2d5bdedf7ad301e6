// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ciliumv2 holds as much of Cilium's policy kinds, group cilium.io, as it takes to pass them on: mesh/policy reads what is in
// their specs. Cilium's own types would bring all of it along.
//
// +kubebuilder:object:generate=true
// +kubebuilder:skip
package ciliumv2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion of both kinds.
	GroupVersion = schema.GroupVersion{Group: "cilium.io", Version: "v2"}

	// SchemeBuilder registers the kinds.
	SchemeBuilder = runtime.NewSchemeBuilder(addKinds)

	// AddToScheme adds the kinds to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKinds(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&CiliumNetworkPolicy{}, &CiliumNetworkPolicyList{},
		&CiliumClusterwideNetworkPolicy{}, &CiliumClusterwideNetworkPolicyList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// CiliumNetworkPolicy is about pods of its namespace.
//
// +kubebuilder:object:root=true
type CiliumNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Specification `json:",inline"`
	Status        PolicyStatus `json:"status,omitempty"`
}

// CiliumNetworkPolicyList is a list of CiliumNetworkPolicies.
//
// +kubebuilder:object:root=true
type CiliumNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CiliumNetworkPolicy `json:"items"`
}

// CiliumClusterwideNetworkPolicy is about pods of all namespaces, or about nodes.
//
// +kubebuilder:object:root=true
type CiliumClusterwideNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Specification `json:",inline"`
	Status        PolicyStatus `json:"status,omitempty"`
}

// CiliumClusterwideNetworkPolicyList is a list of CiliumClusterwideNetworkPolicies.
//
// +kubebuilder:object:root=true
type CiliumClusterwideNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CiliumClusterwideNetworkPolicy `json:"items"`
}

// Specification is what a policy says: one rule for some pods, several, or both. It is kept as it is written.
type Specification struct {
	Spec  *runtime.RawExtension  `json:"spec,omitempty"`
	Specs []runtime.RawExtension `json:"specs,omitempty"`
}

// PolicyStatus is the part of the status that is written to.
type PolicyStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
