// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MeshIdentitySpec is the label set that a number stands for.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="an identity never changes its meaning; a different label set gets a different number"
type MeshIdentitySpec struct {
	Labels map[string]string `json:"labels"`
}

// MeshIdentity gives a label set of this cluster its number, for as long as pods have it and a while longer. The object's
// name is the number. The leading operator allocates; every replica reads; a wiped shared etcd loses none.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=mid
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.labels.fairlead\.dev/namespace`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type MeshIdentity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MeshIdentitySpec `json:"spec"`
}

// MeshIdentityList is a list of MeshIdentity.
// +kubebuilder:object:root=true
type MeshIdentityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshIdentity `json:"items"`
}

// MeshNodeStatus is what a node's agent reported to the operator.
type MeshNodeStatus struct {
	// +optional
	WireGuardPublicKey string `json:"wireGuardPublicKey,omitempty"`
	// +optional
	WireGuardPort int32 `json:"wireGuardPort,omitempty"`
	// +optional
	PodsInPodCIDRs bool `json:"podsInPodCIDRs,omitempty"`
	// Encryption is the implementation in use, e.g. "userspace WireGuard".
	// +optional
	Encryption string `json:"encryption,omitempty"`
	// Datapath is how programs are attached: "tcx" or "clsact".
	// +optional
	Datapath string `json:"datapath,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// +optional
	LastReportTime *metav1.Time `json:"lastReportTime,omitempty"`
	// AppliedRevision of the operator's stream that is in this node's kernel, as epoch/revision.
	// +optional
	AppliedRevision string `json:"appliedRevision,omitempty"`
	// Endpoints are the pods of this node with the datapath attached.
	// +optional
	Endpoints int32 `json:"endpoints,omitempty"`
	// +optional
	EndpointsFailing int32 `json:"endpointsFailing,omitempty"`
	// +optional
	Services int32 `json:"services,omitempty"`
	// Policies enforced, and which version of each.
	// +optional
	Policies []NodePolicy `json:"policies,omitempty"`
	// Tunnels to other nodes, by cluster.
	// +optional
	// +listType=map
	// +listMapKey=cluster
	Tunnels []NodeTunnels `json:"tunnels,omitempty"`
	// Drops by reason, since the datapath was set up.
	// +optional
	Drops []NodeDrop `json:"drops,omitempty"`
	// Problems an administrator should read.
	// +optional
	Problems []NodeProblem `json:"problems,omitempty"`
}

// NodePolicy is a policy on a node.
type NodePolicy struct {
	Key string `json:"key"`
	// +optional
	Revision string `json:"revision,omitempty"`
	// Content is a hash of the object's UID, generation and spec, as the node made it from what is in its kernel.
	// +optional
	Content string `json:"content,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
	// Warning of a policy that is enforced, and not quite as its author meant it.
	// +optional
	Warning string `json:"warning,omitempty"`
}

// NodeTunnels are the tunnels from a node to the nodes of one cluster.
type NodeTunnels struct {
	Cluster string `json:"cluster"`
	Wanted  int32  `json:"wanted"`
	// Ready tunnels take packets; those for nodes with another are dropped.
	Ready int32 `json:"ready"`
	// Connected are ready tunnels with a session: the last handshake is at most 180 s old. A tunnel that nobody uses has none.
	// +optional
	Connected int32 `json:"connected,omitempty"`
	// LatestHandshakeTime of any of them.
	// +optional
	LatestHandshakeTime *metav1.Time `json:"latestHandshakeTime,omitempty"`
	// Broken names some of the tunnels that are not ready.
	// +optional
	Broken []BrokenTunnel `json:"broken,omitempty"`
}

// BrokenTunnel is a tunnel to another node that is not ready.
type BrokenTunnel struct {
	Node string `json:"node"`
	// +optional
	LastHandshakeTime *metav1.Time `json:"lastHandshakeTime,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
}

// NodeDrop counts packets a node dropped for a reason.
type NodeDrop struct {
	Reason    string `json:"reason"`
	Direction string `json:"direction"`
	Packets   int64  `json:"packets"`
}

// NodeProblem is what does not work on a node, why, and what it needs.
type NodeProblem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// MeshNode is what the operator knows from the agent of a node; its name is the node's. Operators write it, agents
// need no right on it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=mno
// +kubebuilder:printcolumn:name="Encryption",type=string,JSONPath=`.status.encryption`
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`
// +kubebuilder:printcolumn:name="Services",type=integer,JSONPath=`.status.services`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Report",type=date,JSONPath=`.status.lastReportTime`
type MeshNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status MeshNodeStatus `json:"status,omitempty"`
}

// MeshNodeList is a list of MeshNode.
// +kubebuilder:object:root=true
type MeshNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshNode `json:"items"`
}
