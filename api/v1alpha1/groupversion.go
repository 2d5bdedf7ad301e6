// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds Fairlead's custom resources, group fairlead.dev.
//
// Conditions follow kstatus, so that kubectl wait, Flux and Argo CD understand them: Ready sums up, Reconciling and
// Stalled say whether waiting helps, and status.observedGeneration starts at -1.
//
// +kubebuilder:object:generate=true
// +groupName=fairlead.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
)

var (
	// GroupVersion of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "fairlead.dev", Version: "v1alpha1"}

	// SchemeBuilder registers the kinds.
	SchemeBuilder = runtime.NewSchemeBuilder(addKinds)

	// AddToScheme adds the kinds to a scheme, and those of others that client-go doesn't know and policies are written in.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKinds(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&ClusterMesh{}, &ClusterMeshList{},
		&ClusterMeshNetworkPolicy{}, &ClusterMeshNetworkPolicyList{},
		&MeshCluster{}, &MeshClusterList{},
		&MeshIdentity{}, &MeshIdentityList{},
		&MeshNetworkPolicy{}, &MeshNetworkPolicyList{},
		&MeshNode{}, &MeshNodeList{},
		&PolicySource{}, &PolicySourceList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	if err := ciliumv2.AddToScheme(s); err != nil {
		return err
	}
	return npav1alpha2.Install(s)
}
