// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Policy reads what policies are judged by from a cluster: pods, nodes, services, policies, and what its nodes' agents say that
// they enforce. What may not be read is named in the cluster's Missing; an error means that nothing can be known.
func Policy(ctx context.Context, name string, config *rest.Config) (*world.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("context %s: reach the Kubernetes API: %w", name, err)
	}
	out, err := readPolicy(ctx, c, name)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", name, err)
	}
	return out, nil
}

// reading fills a world.Cluster.
type reading struct {
	client.Client
	out *world.Cluster
}

func readPolicy(ctx context.Context, c client.Client, name string) (*world.Cluster, error) {
	mesh := &v1alpha1.ClusterMesh{}
	switch err := c.Get(ctx, client.ObjectKey{Name: "mesh"}, mesh); {
	case meta.IsNoMatchError(err):
		return nil, fmt.Errorf("read ClusterMesh mesh: Fairlead is not installed there: %w", err)
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read ClusterMesh mesh: the cluster is no member of a mesh yet: %w", err)
	case err != nil:
		return nil, fmt.Errorf("read ClusterMesh mesh: %w", err)
	}
	out := &world.Cluster{
		Name: mesh.Spec.ClusterName, ID: uint8(mesh.Spec.ClusterID), Context: name, Labels: mesh.Spec.Labels, Strict: mesh.Spec.Encryption.Strict,
		PolicyMode: mesh.Spec.Policy.Mode, Modes: map[string]record.NamespaceMode{},
		Namespaces: map[string]map[string]string{}, Identities: map[uint32]map[string]string{}, Others: map[string]world.Other{},
	}
	r := reading{c, out}
	out.PodCIDRs, out.ServiceCIDRs = r.prefixes("podCIDRs", mesh.Spec.PodCIDRs), r.prefixes("serviceCIDRs", mesh.Spec.ServiceCIDRs)
	for _, step := range []func(context.Context) error{r.others, r.identities, r.namespaces, r.nodes, r.pods, r.services, r.policies} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	out.SortPolicies()
	return out, nil
}

// list reads all objects of a kind. A refusal is noted; what makes going on pointless is an error.
func (r reading) list(ctx context.Context, kind string, list client.ObjectList) error {
	err := r.List(ctx, list)
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err), meta.IsNoMatchError(err):
		r.miss("read %s: %v", kind, err)
		return nil
	}
	return fmt.Errorf("read %s: %w", kind, err)
}

func (r reading) miss(format string, args ...any) {
	r.out.Missing = append(r.out.Missing, fmt.Sprintf(format, args...))
}

func (r reading) prefixes(field string, texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			r.miss("ClusterMesh mesh, spec.%s: %v", field, err)
			continue
		}
		out = append(out, p)
	}
	return out
}

func addresses[T any](list []T, text func(T) string) []netip.Addr {
	var out []netip.Addr
	for _, e := range list {
		if a, err := netip.ParseAddr(text(e)); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func (r reading) others(ctx context.Context) error {
	var list v1alpha1.MeshClusterList
	if err := r.list(ctx, "MeshClusters", &list); err != nil {
		return err
	}
	for i := range list.Items {
		m := &list.Items[i]
		r.out.Others[m.Name] = world.Other{PodCIDRs: r.prefixes("podCIDRs of MeshCluster "+m.Name, m.Spec.PodCIDRs), Unused: unused(m)}
	}
	return nil
}

// unused says why a cluster's records are not all in use, in the words of its MeshCluster.
func unused(m *v1alpha1.MeshCluster) string {
	if m.Spec.Suspend {
		return "MeshCluster " + m.Name + " is suspended: what it knows may be old"
	}
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionControlPlaneConnected, v1alpha1.ConditionSynced} {
		if c := meta.FindStatusCondition(m.Status.Conditions, kind); c == nil || c.Status != "True" {
			text := fmt.Sprintf("MeshCluster %s: %s is not True", m.Name, kind)
			if c != nil && c.Message != "" {
				text += ": " + c.Message
			}
			return text
		}
	}
	if n := m.Status.RejectedRecords; n > 0 {
		return fmt.Sprintf("MeshCluster %s: %d of its records were refused", m.Name, n)
	}
	return ""
}

func (r reading) identities(ctx context.Context) error {
	var list v1alpha1.MeshIdentityList
	if err := r.list(ctx, "MeshIdentities", &list); err != nil {
		return err
	}
	for _, i := range list.Items {
		n, err := strconv.ParseUint(i.Name, 10, 32)
		if err != nil {
			continue // the operator ignores it, too
		}
		r.out.Identities[uint32(n)] = i.Spec.Labels
	}
	return nil
}

func (r reading) namespaces(ctx context.Context) error {
	var list corev1.NamespaceList
	if err := r.list(ctx, "Namespaces", &list); err != nil {
		return err
	}
	for _, n := range list.Items {
		r.out.Namespaces[n.Name] = n.Labels
		r.out.Modes[n.Name] = record.ReadNamespaceMode(n.Name, n.Labels, n.Annotations)
	}
	return nil
}

func (r reading) nodes(ctx context.Context) error {
	var nodes corev1.NodeList
	var reports v1alpha1.MeshNodeList
	if err := r.list(ctx, "Nodes", &nodes); err != nil {
		return err
	}
	if err := r.list(ctx, "MeshNodes", &reports); err != nil {
		return err
	}
	known := map[string]*world.Node{}
	for _, n := range nodes.Items {
		node := &world.Node{Cluster: r.out.Name, Name: n.Name, Labels: n.Labels, Enforces: map[string]world.Enforced{}}
		node.Addresses = addresses(n.Status.Addresses, func(a corev1.NodeAddress) string {
			if a.Type != corev1.NodeInternalIP {
				return ""
			}
			return a.Address
		})
		known[n.Name] = node
		r.out.Nodes = append(r.out.Nodes, node)
	}
	for _, m := range reports.Items {
		if node := known[m.Name]; node != nil && m.Status.LastReportTime != nil {
			node.Reported = m.Status.LastReportTime.Time
			for _, p := range m.Status.Policies {
				node.Enforces[keyWithin(p.Key)] = world.Enforced{Revision: p.Revision, Content: p.Content, Problem: p.Error}
			}
		}
	}
	return nil
}

func (r reading) services(ctx context.Context) error {
	var services corev1.ServiceList
	var slices discoveryv1.EndpointSliceList
	if err := r.list(ctx, "Services", &services); err != nil {
		return err
	}
	if err := r.list(ctx, "EndpointSlices", &slices); err != nil {
		return err
	}
	r.out.Services = Definitions(r.out.Name, services.Items, slices.Items)
	return nil
}
