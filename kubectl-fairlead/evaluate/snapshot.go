// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package evaluate judges how a mesh is. It is pure: what the Kubernetes API said goes in as a Snapshot with the time it
// was taken, a Report comes out. Every check has an id that never changes its meaning, so that scripts and the
// documentation can refer to it.
//
// gather (Kubernetes API → Snapshot) → evaluate (Snapshot → Report) → render (Report → text, JSON, YAML)
package evaluate

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Snapshot is what one cluster's Kubernetes API said at a time.
type Snapshot struct {
	Context string
	Taken   time.Time

	// Unreachable says why the API gave no answer; everything below is then empty.
	Unreachable string
	// NotInstalled: the API does not know the kinds of fairlead.dev.
	NotInstalled bool
	// Unread lists what could not be read and why, such as a missing right.
	Unread []string

	Mesh            *v1alpha1.ClusterMesh
	Clusters        []v1alpha1.MeshCluster
	Nodes           []v1alpha1.MeshNode
	Sources         []v1alpha1.PolicySource
	Policies        []v1alpha1.MeshNetworkPolicy
	ClusterPolicies []v1alpha1.ClusterMeshNetworkPolicy
	// OtherPolicies are of the kinds that have no status of ours.
	OtherPolicies []v1alpha1.PolicyObject

	// Modes are what namespaces say of their own policies' mode. ModesUnknown: it could not be read.
	Modes        map[string]record.NamespaceMode
	ModesUnknown bool

	// KubeNodes are the names of all nodes of the cluster.
	KubeNodes []string
	Services  []corev1.Service

	Operator, Agent, Tunnel Workload
}

// Workload is how far a Deployment or DaemonSet is.
type Workload struct {
	Found       bool
	Want, Ready int32
	Image       string
}
