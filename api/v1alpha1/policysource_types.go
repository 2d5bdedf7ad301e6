// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicySourceSpec says where policies come from. Exactly one of git and sourceRef.
// +kubebuilder:validation:XValidation:rule="has(self.git) != has(self.sourceRef)",message="give either git (Fairlead fetches) or sourceRef (Flux fetches)"
type PolicySourceSpec struct {
	// Git is fetched by Fairlead itself.
	// +optional
	Git *GitSource `json:"git,omitempty"`

	// SourceRef names a Flux source whose artifact is used.
	// +optional
	SourceRef *SourceReference `json:"sourceRef,omitempty"`

	// Path within the repository; only YAML below it is read.
	// +optional
	// +kubebuilder:default="./"
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.contains('..')",message="path must stay within the repository"
	Path string `json:"path,omitempty"`

	// TargetNamespace for namespaced objects that name none.
	// +optional
	TargetNamespace string `json:"targetNamespace,omitempty"`

	// Interval between looks at the repository.
	// +optional
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	Interval metav1.Duration `json:"interval,omitempty"`

	// Prune removes objects from the cluster when they vanish from the repository.
	// +optional
	// +kubebuilder:default=true
	Prune bool `json:"prune"`

	// Suspend stops fetching and applying.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// GitSource is a repository and what to check out.
type GitSource struct {
	// URL: https://, http:// or ssh://.
	// +kubebuilder:validation:Pattern=`^(https?|ssh)://.+$`
	URL string `json:"url"`
	// Branch to follow.
	// +optional
	// +kubebuilder:default=main
	Branch string `json:"branch,omitempty"`
	// SecretRef with username and password, bearerToken, ca.crt, or identity and known_hosts for ssh.
	// +optional
	SecretRef *meta.LocalObjectReference `json:"secretRef,omitempty"`
}

// SourceReference names a Flux source in the same namespace.
type SourceReference struct {
	// +kubebuilder:validation:Enum=GitRepository;OCIRepository;Bucket;ExternalArtifact
	Kind string `json:"kind"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// PolicySourceStatus tells what was fetched and applied.
type PolicySourceStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	LastAttemptedRevision string `json:"lastAttemptedRevision,omitempty"`
	// +optional
	LastAppliedRevision string `json:"lastAppliedRevision,omitempty"`
	// +optional
	LastAppliedTime *metav1.Time `json:"lastAppliedTime,omitempty"`
	// Inventory of applied objects, so that pruning knows what is ours and a verdict leads back to its commit. It is written
	// before a commit is applied and completed after.
	// +optional
	Inventory []InventoryEntry `json:"inventory,omitempty"`
	// InventoryRevision is the revision that the inventory's contents are of. It is ahead of lastAppliedRevision while a commit
	// is applied.
	// +optional
	InventoryRevision string `json:"inventoryRevision,omitempty"`
	// InventoryURL is the repository that the inventory's contents are from.
	// +optional
	InventoryURL string `json:"inventoryURL,omitempty"`
	// Nodes of this cluster on which LastAppliedRevision is in the kernel.
	// +optional
	Nodes PolicyNodes `json:"nodes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	meta.ReconcileRequestStatus `json:",inline"`
}

// InventoryEntry is one applied object.
type InventoryEntry struct {
	Kind string `json:"kind"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Path of the file it came from.
	Path string `json:"path"`
	// UID of the object; empty while it is being created.
	// +optional
	UID string `json:"uid,omitempty"`
	// Content is a hash of the spec that was applied; empty if the object is no longer in the repository.
	// +optional
	Content string `json:"content,omitempty"`
}

// PolicySource applies network policies from a repository, each with the commit and file it came from.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=psrc
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.lastAppliedRevision`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Realized",type=integer,JSONPath=`.status.nodes.realized`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type PolicySource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec PolicySourceSpec `json:"spec"`
	// +kubebuilder:default={observedGeneration:-1}
	Status PolicySourceStatus `json:"status,omitempty"`
}

// PolicySourceList is a list of PolicySource.
// +kubebuilder:object:root=true
type PolicySourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicySource `json:"items"`
}
