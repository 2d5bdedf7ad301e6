// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// PolicyMode says what happens to a connection that a policy would deny.
// +kubebuilder:validation:Enum=Enforce;Audit
type PolicyMode string

// Modes: Enforce drops, Audit lets it pass and reports what it would have done.
const (
	PolicyEnforce PolicyMode = "Enforce"
	PolicyAudit   PolicyMode = "Audit"
)

// PolicyTier is where a policy of the whole cluster is judged: before or after those of the namespaces.
// +kubebuilder:validation:Enum=Admin;Baseline
type PolicyTier string

// Tiers: Admin can't be overridden by policies of a namespace, Baseline is asked where none of them isolates a pod.
const (
	PolicyTierAdmin    PolicyTier = "Admin"
	PolicyTierBaseline PolicyTier = "Baseline"
)

// PolicyEntity names a kind of peers that have no labels.
// +kubebuilder:validation:Enum=World;Nodes
type PolicyEntity string

// Entities: World is everything that is neither a pod nor a node of the mesh, Nodes are the nodes of all clusters, with their
// host-network pods. A pod's own node is never denied what it opens to the pod, only what the pod opens to it.
const (
	PolicyEntityWorld PolicyEntity = "World"
	PolicyEntityNodes PolicyEntity = "Nodes"
)

// MeshPolicyPeer selects who is at the other end: pods (by any of podSelector, namespaceSelector, clusterSelector and
// serviceAccounts), what is behind services, nodes, entities, or a cidr, exactly one of these.
// +kubebuilder:validation:XValidation:rule="[has(self.cidr), has(self.nodeSelector), has(self.services), has(self.entities), has(self.podSelector) || has(self.namespaceSelector) || has(self.clusterSelector) || has(self.serviceAccounts)].filter(is, is).size() == 1",message="a peer is one of: a cidr, nodes by nodeSelector, services, entities, or pods chosen by podSelector, namespaceSelector, clusterSelector and serviceAccounts"
// +kubebuilder:validation:XValidation:rule="!has(self.except) || has(self.cidr)",message="except needs cidr"
type MeshPolicyPeer struct {
	// ClusterSelector chooses clusters by their labels. Absent: the local cluster only. {}: all clusters.
	// +optional
	ClusterSelector *metav1.LabelSelector `json:"clusterSelector,omitempty"`
	// NamespaceSelector chooses namespaces by their labels. Absent: the policy's own namespace (in a
	// ClusterMeshNetworkPolicy: all). {}: all namespaces.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// PodSelector chooses pods by their labels. Absent or {}: all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// ServiceAccounts limits the pods to those that run as one of these, by name, in the namespaces and clusters that are chosen.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	ServiceAccounts []string `json:"serviceAccounts,omitempty"`
	// NodeSelector chooses nodes of the local cluster by their labels, with their host-network pods. {}: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// Services chooses what is behind services of the local cluster: their pods, and other addresses that they lead to. Behind a
	// global one are those of all clusters that share it, too. Ports are the pods', not the service's.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Services []MeshPolicyService `json:"services,omitempty"`
	// Entities chooses whole kinds of peers.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	Entities []PolicyEntity `json:"entities,omitempty"`
	// CIDR chooses addresses, whoever has them.
	// +optional
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 192.0.2.0/24"
	CIDR string `json:"cidr,omitempty"`
	// Except takes parts out of cidr.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="each entry must be a CIDR"
	// +listType=set
	Except []string `json:"except,omitempty"`
}

// MeshPolicyService names a service.
type MeshPolicyService struct {
	// Namespace. Absent: the policy's own; a ClusterMeshNetworkPolicy, which has none, must give it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// MeshPolicyPort is a port or a range.
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || (has(self.port) && self.endPort >= self.port)",message="endPort needs port and must not be below it"
// +kubebuilder:validation:XValidation:rule="!(has(self.port) && has(self.name))",message="give port or name, not both"
type MeshPolicyPort struct {
	// +optional
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	// +kubebuilder:default=TCP
	Protocol string `json:"protocol,omitempty"`
	// Port number; without port and name: every port of the protocol.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort *int32 `json:"endPort,omitempty"`
	// Name of a container port of the destination pod.
	// +optional
	Name string `json:"name,omitempty"`
}

// MeshPolicyICMP is messages of ICMP (IPv4) or ICMPv6 (IPv6). The answer to one passes with it, as do errors about it.
// +kubebuilder:validation:XValidation:rule="has(self.family) || !has(self.type) || type(self.type) == string",message="a number needs the family: types have other numbers in the other one"
type MeshPolicyICMP struct {
	// Family. Absent: both, or of a type that only one of them has a name for, that one.
	// +optional
	// +kubebuilder:validation:Enum=IPv4;IPv6
	Family string `json:"family,omitempty"`
	// Type by number or name, such as EchoRequest. Absent: every type. Errors (DestinationUnreachable, PacketTooBig,
	// TimeExceeded and others) can't be named: they belong to the connection that they are about.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="type(self) == string || (self >= 0 && self <= 255)",message="a number is one from 0 to 255"
	Type *intstr.IntOrString `json:"type,omitempty"`
}

// Families of MeshPolicyICMP.
const (
	ICMPFamilyIPv4 = "IPv4"
	ICMPFamilyIPv6 = "IPv6"
)

// MeshPolicyRule matches connections by peer, and by port or ICMP type. Without peers it means everybody, with neither ports nor
// icmp everything.
type MeshPolicyRule struct {
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Peers []MeshPolicyPeer `json:"peers,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Ports []MeshPolicyPort `json:"ports,omitempty"`
	// ICMP messages, besides the ports if there are any.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	ICMP []MeshPolicyICMP `json:"icmp,omitempty"`
}

// MeshPolicyDirection holds the rules of one direction. Deny wins over allow. As soon as a direction is present,
// what no rule allows is denied; to only subtract, set defaultAction to Allow.
type MeshPolicyDirection struct {
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Allow []MeshPolicyRule `json:"allow,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Deny []MeshPolicyRule `json:"deny,omitempty"`
	// Pass leaves what no rule above matches to the next tier, and skips the policies after this one in its own. Only in a
	// ClusterMeshNetworkPolicy with a tier.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Pass []MeshPolicyRule `json:"pass,omitempty"`
	// DefaultAction is what becomes of connections that no rule matches. Allow: this policy has no say in them.
	// +optional
	// +kubebuilder:validation:Enum=Allow;Deny
	// +kubebuilder:default=Deny
	DefaultAction string `json:"defaultAction,omitempty"`
}

// MeshNetworkPolicySpec chooses pods of this namespace and says who may talk with them.
// +kubebuilder:validation:XValidation:rule="has(self.ingress) || has(self.egress)",message="a policy needs ingress or egress; an empty direction ({}) denies everything in it"
type MeshNetworkPolicySpec struct {
	// PodSelector chooses the subjects. {}: every pod of the namespace.
	PodSelector metav1.LabelSelector `json:"podSelector"`
	// ClusterSelector limits the clusters in which this policy selects pods; it lets one repository serve all clusters.
	// Absent: every cluster that applies it.
	// +optional
	ClusterSelector *metav1.LabelSelector `json:"clusterSelector,omitempty"`
	// +optional
	Ingress *MeshPolicyDirection `json:"ingress,omitempty"`
	// +optional
	Egress *MeshPolicyDirection `json:"egress,omitempty"`
	// +optional
	// +kubebuilder:default=Enforce
	Mode PolicyMode `json:"mode,omitempty"`
}

// ClusterMeshNetworkPolicySpec is the same for pods of many namespaces.
// +kubebuilder:validation:XValidation:rule="has(self.tier) == has(self.priority)",message="tier and priority need each other"
// +kubebuilder:validation:XValidation:rule="has(self.tier) || !((has(self.ingress) && has(self.ingress.pass)) || (has(self.egress) && has(self.egress.pass)))",message="pass needs a tier: without one there is none to pass to"
type ClusterMeshNetworkPolicySpec struct {
	MeshNetworkPolicySpec `json:",inline"`
	// Tier says when this policy is judged. Absent: together with those of the namespaces, where a deny wins over every
	// allow. Admin: before them; what it allows or denies is decided. Baseline: after them, for pods that none of them
	// isolates. Within a tier the first rule that matches decides: of the policies in the order of their priority, and in
	// each of deny, allow, pass and the default action, in this order.
	// +optional
	Tier PolicyTier `json:"tier,omitempty"`
	// Priority orders the policies of a tier, together with ClusterNetworkPolicies: lower ones are asked first. Of equal
	// ones, the first by name.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Priority *int32 `json:"priority,omitempty"`
	// NamespaceSelector chooses the subjects' namespaces. Absent or {}: all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// MeshPolicyStatus sums up how far a policy got in this cluster.
type MeshPolicyStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// AppliedRevision is the Git revision enforced on all realized nodes.
	// +optional
	AppliedRevision string `json:"appliedRevision,omitempty"`
	// +optional
	Nodes PolicyNodes `json:"nodes,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PolicyNodes counts nodes; failing names at most ten.
type PolicyNodes struct {
	// +optional
	Total int32 `json:"total,omitempty"`
	// +optional
	Realized int32 `json:"realized,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=10
	Failing []string `json:"failing,omitempty"`
}

// MeshNetworkPolicy is a network policy that can name pods of other clusters.
// +kubebuilder:object:root=true
// +kubebuilder:validation:XValidation:rule="!((has(self.spec.ingress) && has(self.spec.ingress.pass)) || (has(self.spec.egress) && has(self.spec.egress.pass)))",message="pass is for a ClusterMeshNetworkPolicy with a tier"
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=mnp
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Realized",type=integer,JSONPath=`.status.nodes.realized`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.appliedRevision`
type MeshNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MeshNetworkPolicySpec `json:"spec"`
	// +kubebuilder:default={observedGeneration:-1}
	Status MeshPolicyStatus `json:"status,omitempty"`
}

// MeshNetworkPolicyList is a list of MeshNetworkPolicy.
// +kubebuilder:object:root=true
type MeshNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshNetworkPolicy `json:"items"`
}

// ClusterMeshNetworkPolicy is a MeshNetworkPolicy for pods of many namespaces.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cmnp
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Realized",type=integer,JSONPath=`.status.nodes.realized`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.appliedRevision`
type ClusterMeshNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterMeshNetworkPolicySpec `json:"spec"`
	// +kubebuilder:default={observedGeneration:-1}
	Status MeshPolicyStatus `json:"status,omitempty"`
}

// ClusterMeshNetworkPolicyList is a list of ClusterMeshNetworkPolicy.
// +kubebuilder:object:root=true
type ClusterMeshNetworkPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterMeshNetworkPolicy `json:"items"`
}
