// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Acceptance says who decides that a cluster's records are used.
// +kubebuilder:validation:Enum=Automatic;Manual
type Acceptance string

// Kinds of acceptance: Automatic when the operator created the object from the store's own word;
// Manual when an administrator wrote down what the cluster may claim.
const (
	AcceptAutomatic Acceptance = "Automatic"
	AcceptManual    Acceptance = "Manual"
)

// MeshClusterSpec is what this cluster lets another one claim. The operator creates one for each cluster it finds,
// with what that cluster announced; from then on only an administrator changes it, so a member can't widen its own claim.
type MeshClusterSpec struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	ClusterID int32 `json:"clusterID"`

	// PodCIDRs this cluster may own addresses in. Records with other addresses are rejected.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="each entry must be a CIDR such as 10.1.0.0/16"
	// +listType=set
	PodCIDRs []string `json:"podCIDRs"`

	// +optional
	// +kubebuilder:default=Automatic
	Acceptance Acceptance `json:"acceptance,omitempty"`

	// ExportNamespaces limits whose services are imported; empty = all.
	// +optional
	// +listType=set
	ExportNamespaces []string `json:"exportNamespaces,omitempty"`

	// Suspend freezes what was imported from this cluster.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// MeshClusterStatus tells how the exchange with this cluster goes.
type MeshClusterStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	LastHeartbeatTime *metav1.Time `json:"lastHeartbeatTime,omitempty"`
	// LastSyncedRevision of the shared etcd at which this cluster's records were complete.
	// +optional
	LastSyncedRevision int64 `json:"lastSyncedRevision,omitempty"`
	// Records accepted, by kind.
	// +optional
	Records map[string]int32 `json:"records,omitempty"`
	// RejectedRecords and the newest reasons, at most ten.
	// +optional
	RejectedRecords int32 `json:"rejectedRecords,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=10
	Rejections []Rejection `json:"rejections,omitempty"`
	// +optional
	Nodes int32 `json:"nodes,omitempty"`
	// Tunnels from this cluster's nodes to that one's: how many are wanted, how many shook hands lately.
	// +optional
	Tunnels NodeCounts `json:"tunnels,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Rejection names a record that was refused and why.
type Rejection struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// MeshCluster is another cluster of the mesh, as this cluster sees it. Its name is that cluster's name.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=mcl
// +kubebuilder:printcolumn:name="ID",type=integer,JSONPath=`.spec.clusterID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Rejected",type=integer,JSONPath=`.status.rejectedRecords`
// +kubebuilder:printcolumn:name="Heartbeat",type=date,JSONPath=`.status.lastHeartbeatTime`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type MeshCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MeshClusterSpec `json:"spec"`
	// +kubebuilder:default={observedGeneration:-1}
	Status MeshClusterStatus `json:"status,omitempty"`
}

// MeshClusterList is a list of MeshCluster.
// +kubebuilder:object:root=true
type MeshClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshCluster `json:"items"`
}
