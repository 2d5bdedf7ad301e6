// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gather reads what the status command judges from the Kubernetes API of a cluster. It judges nothing itself.
package gather

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Timeout of everything that is asked of one cluster.
const Timeout = 15 * time.Second

// Scheme knows the kinds that are read.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("register the kinds of Kubernetes: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("register the kinds of Fairlead: %w", err)
	}
	return s, nil
}

// Cluster reads a cluster. What can't be read is said in the snapshot, which is all that a judge can use.
func Cluster(ctx context.Context, name string, config *rest.Config) evaluate.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	s := evaluate.Snapshot{Context: name, Taken: time.Now()}
	scheme, err := Scheme()
	if err == nil {
		var c client.Client
		if c, err = client.New(config, client.Options{Scheme: scheme}); err == nil {
			err = read(ctx, c, &s)
		}
	}
	if err != nil {
		s.Unreachable = err.Error()
	}
	return s
}

// read fills the snapshot. An error means that nothing can be known; a single kind that is refused does not.
func read(ctx context.Context, c client.Client, s *evaluate.Snapshot) error {
	mesh := &v1alpha1.ClusterMesh{}
	switch err := c.Get(ctx, client.ObjectKey{Name: "mesh"}, mesh); {
	case err == nil:
		s.Mesh = mesh
	case meta.IsNoMatchError(err):
		s.NotInstalled = true
		return nil
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read ClusterMesh mesh: %w", err)
	}
	var (
		clusters        v1alpha1.MeshClusterList
		nodes           v1alpha1.MeshNodeList
		sources         v1alpha1.PolicySourceList
		policies        v1alpha1.MeshNetworkPolicyList
		clusterPolicies v1alpha1.ClusterMeshNetworkPolicyList
		kubeNodes       corev1.NodeList
		services        corev1.ServiceList
		namespaces      corev1.NamespaceList
	)
	for _, l := range []struct {
		kind string
		list client.ObjectList
	}{
		{"MeshClusters", &clusters},
		{"MeshNodes", &nodes},
		{"PolicySources", &sources},
		{"MeshNetworkPolicies", &policies},
		{"ClusterMeshNetworkPolicies", &clusterPolicies},
		{"Nodes", &kubeNodes},
		{"Services", &services},
		{"Namespaces", &namespaces},
	} {
		if err := optional(s, l.kind, c.List(ctx, l.list)); err != nil {
			return err
		}
	}
	s.Clusters, s.Nodes, s.Sources = clusters.Items, nodes.Items, sources.Items
	s.Policies, s.ClusterPolicies, s.Services = policies.Items, clusterPolicies.Items, services.Items
	for _, n := range kubeNodes.Items {
		s.KubeNodes = append(s.KubeNodes, n.Name)
	}
	s.Modes, s.ModesUnknown = map[string]record.NamespaceMode{}, len(namespaces.Items) == 0
	for _, n := range namespaces.Items {
		s.Modes[n.Name] = record.ReadNamespaceMode(n.Name, n.Labels, n.Annotations)
	}
	if err := otherPolicies(ctx, c, s); err != nil {
		return err
	}
	return workloads(ctx, c, s)
}

// otherPolicies reads the policies of kinds that have no status of ours.
func otherPolicies(ctx context.Context, c client.Client, s *evaluate.Snapshot) error {
	for _, kind := range v1alpha1.PolicyKinds() {
		if kind.Status != nil {
			continue
		}
		err := eachPolicy(ctx, c, kind, func(p v1alpha1.PolicyObject) error {
			s.OtherPolicies = append(s.OtherPolicies, p)
			return nil
		})
		if err := optional(s, kind.Name+" objects", err); err != nil {
			return err
		}
	}
	return nil
}

func workloads(ctx context.Context, c client.Reader, s *evaluate.Snapshot) error {
	var operator appsv1.Deployment
	key := client.ObjectKey{Namespace: evaluate.Namespace, Name: "fairlead-operator"}
	if err := optional(s, "Deployment "+key.Name, c.Get(ctx, key, &operator)); err != nil {
		return err
	}
	s.Operator = deployment(operator)
	for name, into := range map[string]*evaluate.Workload{"fairlead-nodeagent": &s.Agent, "fairlead-tunnel": &s.Tunnel} {
		var ds appsv1.DaemonSet
		key.Name = name
		if err := optional(s, "DaemonSet "+name, c.Get(ctx, key, &ds)); err != nil {
			return err
		}
		*into = daemonSet(ds)
	}
	return nil
}

// optional notes a refusal and passes on what makes going on pointless.
func optional(s *evaluate.Snapshot, kind string, err error) error {
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err), meta.IsNoMatchError(err):
		s.Unread = append(s.Unread, kind+": "+err.Error())
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("read %s: no answer within %s", kind, Timeout)
	}
	return fmt.Errorf("read %s: %w", kind, err)
}

func deployment(d appsv1.Deployment) evaluate.Workload {
	w := evaluate.Workload{Found: d.Name != "", Ready: d.Status.ReadyReplicas, Image: image(d.Spec.Template)}
	if d.Spec.Replicas != nil {
		w.Want = *d.Spec.Replicas
	}
	return w
}

func daemonSet(d appsv1.DaemonSet) evaluate.Workload {
	return evaluate.Workload{
		Found: d.Name != "", Want: d.Status.DesiredNumberScheduled, Ready: d.Status.NumberReady, Image: image(d.Spec.Template),
	}
}

func image(t corev1.PodTemplateSpec) string {
	if len(t.Spec.Containers) == 0 {
		return ""
	}
	return t.Spec.Containers[0].Image
}
