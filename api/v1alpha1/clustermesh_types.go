// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EncryptionMode is how packets between nodes are protected.
// +kubebuilder:validation:Enum=WireGuard;None
type EncryptionMode string

// Encryption modes. IPsec is planned and refused until it exists.
const (
	EncryptionWireGuard EncryptionMode = "WireGuard"
	EncryptionNone      EncryptionMode = "None"
)

// EncryptionScope says which traffic between pods the tunnel carries.
// +kubebuilder:validation:Enum=All;InterCluster
type EncryptionScope string

// Encryption scopes.
const (
	EncryptAll          EncryptionScope = "All"
	EncryptInterCluster EncryptionScope = "InterCluster"
)

// ClusterMeshSpec makes this cluster a member of a mesh.
// +kubebuilder:validation:XValidation:rule="self.clusterName == oldSelf.clusterName && self.clusterID == oldSelf.clusterID && self.meshID == oldSelf.meshID",message="meshID, clusterName and clusterID are part of every identity and can't be changed; delete this ClusterMesh and create it anew to rejoin"
type ClusterMeshSpec struct {
	// MeshID names the mesh. Clusters of different meshes ignore each other.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	MeshID string `json:"meshID"`

	// ClusterName names this cluster, unique in the mesh. It is the name of its credential at the shared etcd.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=32
	ClusterName string `json:"clusterName"`

	// ClusterID numbers this cluster, unique in the mesh; it is the upper byte of its identities.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	ClusterID int32 `json:"clusterID"`

	// PodCIDRs of this cluster. No two clusters of a mesh may overlap.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="each entry must be a CIDR such as 10.1.0.0/16"
	// +listType=set
	PodCIDRs []string `json:"podCIDRs"`

	// ServiceCIDRs of this cluster. They may overlap with other clusters'.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="each entry must be a CIDR such as 10.96.0.0/16"
	// +listType=set
	ServiceCIDRs []string `json:"serviceCIDRs,omitempty"`

	// Labels describe this cluster to the others; clusterSelectors in policies match them.
	// The label fairlead.dev/cluster=<clusterName> is always there.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// Region and Zone of this cluster, if it has one.
	// +optional
	Region string `json:"region,omitempty"`
	// +optional
	Zone string `json:"zone,omitempty"`

	// Store is the shared etcd.
	Store StoreSpec `json:"store"`

	// +optional
	// +kubebuilder:default={}
	Encryption EncryptionSpec `json:"encryption,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Services ServicesSpec `json:"services,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Policy PolicySpec `json:"policy,omitempty"`

	// Suspend stops exporting and importing; what the datapath holds stays.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// StoreSpec says where the shared etcd is and how to log in.
type StoreSpec struct {
	// Endpoints, https:// only.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:XValidation:rule="self.all(e, e.startsWith('https://'))",message="endpoints must begin with https://: the shared etcd holds every cluster's identities"
	// +listType=set
	Endpoints []string `json:"endpoints"`

	// TLSSecretRef names a Secret in the operator's namespace with ca.crt, tls.crt and tls.key. The certificate's
	// common name must be the cluster's name.
	TLSSecretRef corev1.LocalObjectReference `json:"tlsSecretRef"`
}

// EncryptionSpec chooses how node-to-node traffic is protected.
type EncryptionSpec struct {
	// +optional
	// +kubebuilder:default=WireGuard
	Mode EncryptionMode `json:"mode,omitempty"`

	// Scope: All pods' traffic between nodes, or only what crosses clusters.
	// +optional
	// +kubebuilder:default=All
	Scope EncryptionScope `json:"scope,omitempty"`

	// Strict refuses plaintext from pods of the own cluster too (traffic between clusters is always strict).
	// +optional
	Strict bool `json:"strict,omitempty"`
}

// ServicesSpec sets defaults for services.
type ServicesSpec struct {
	// DefaultExport: Annotated exports services that carry fairlead.dev/global=true; None exports nothing.
	// +optional
	// +kubebuilder:validation:Enum=Annotated;None
	// +kubebuilder:default=Annotated
	DefaultExport string `json:"defaultExport,omitempty"`
}

// PolicySpec sets what holds for all policies of this cluster.
type PolicySpec struct {
	// Mode Audit has every policy of this cluster audited, whatever its kind and its own mode: no policy denies anything, and
	// what one would have denied is reported. What is closed for other reasons than a policy stays closed.
	// +optional
	// +kubebuilder:default=Enforce
	Mode PolicyMode `json:"mode,omitempty"`
}

// ClusterMeshStatus tells how the membership goes.
type ClusterMeshStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// TotalClusters that this cluster knows of, itself included.
	// +optional
	TotalClusters int32 `json:"totalClusters,omitempty"`
	// ReadyClusters of them, itself included.
	// +optional
	ReadyClusters int32 `json:"readyClusters,omitempty"`
	// OperatorVersion of the operator that wrote this status.
	// +optional
	OperatorVersion string `json:"operatorVersion,omitempty"`
	// Nodes of this cluster, and how many of them run an agent that keeps up.
	// +optional
	Nodes NodeCounts `json:"nodes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeCounts sums up nodes.
type NodeCounts struct {
	// +optional
	Total int32 `json:"total,omitempty"`
	// +optional
	Ready int32 `json:"ready,omitempty"`
}

// ClusterMesh is this cluster's membership in a mesh. There is one, named "mesh".
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cmesh
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="ID",type=integer,JSONPath=`.spec.clusterID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Clusters",type=integer,JSONPath=`.status.totalClusters`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'mesh'",message="a cluster has one ClusterMesh and its name is 'mesh'"
type ClusterMesh struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterMeshSpec `json:"spec"`
	// +kubebuilder:default={observedGeneration:-1}
	Status ClusterMeshStatus `json:"status,omitempty"`
}

// ClusterMeshList is a list of ClusterMesh.
// +kubebuilder:object:root=true
type ClusterMeshList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterMesh `json:"items"`
}
