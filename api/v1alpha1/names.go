// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready, Reconciling and Stalled are kstatus's own.
const (
	ConditionStoreReachable        = "StoreReachable"
	ConditionEncryptionEnforced    = "EncryptionEnforced"
	ConditionPolicyEnforced        = "PolicyEnforced"
	ConditionAccepted              = "Accepted"
	ConditionControlPlaneConnected = "ControlPlaneConnected"
	ConditionSynced                = "Synced"
	ConditionTunnelHealthy         = "TunnelHealthy"
	// ConditionMembersAccepted is only there, and False, while a cluster of the shared etcd is not let in.
	ConditionMembersAccepted = "MembersAccepted"
	// ConditionPolicyReady is ours on policies of others' kinds, beside what other implementations write there.
	ConditionPolicyReady = "fairlead.dev/Ready"
)

// Annotations that Fairlead reads on Services. Cilium's service.cilium.io/{global,shared,affinity} and its older
// io.cilium/* names are understood too; ours win where both are set.
const (
	AnnotationGlobal   = "fairlead.dev/global"
	AnnotationShared   = "fairlead.dev/shared"
	AnnotationAffinity = "fairlead.dev/affinity"
)

// AnnotationPolicyMode on a Namespace, with the value Audit, has the namespace's own policies audited.
const AnnotationPolicyMode = "fairlead.dev/policy-mode"

// Annotations and labels that Fairlead writes on objects it applied from Git.
const (
	AnnotationSourceURL      = "fairlead.dev/source-url"
	AnnotationSourceRevision = "fairlead.dev/source-revision"
	AnnotationSourcePath     = "fairlead.dev/source-path"
	LabelSourceName          = "fairlead.dev/policy-source-name"
	LabelSourceNamespace     = "fairlead.dev/policy-source-namespace"
)

// Labels that identities carry besides the pod's own.
const (
	LabelCluster         = "fairlead.dev/cluster"
	LabelNamespace       = "fairlead.dev/namespace"
	LabelServiceAccount  = "fairlead.dev/service-account"
	LabelNamespacePrefix = "namespace.fairlead.dev/"
)
