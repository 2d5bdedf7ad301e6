// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/operator/condition"
)

// maxFailing names in a status.
const maxFailing = 10

// wanted is a policy as the agents should have it.
type wanted struct{ key, revision string }

func wantedPolicy(cluster, kind string, o client.Object) wanted {
	key, err := record.Key(&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Policy{
		Policy: &recordv1.Policy{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()},
	}})
	if err != nil {
		return wanted{} // such a policy is not exported, and no agent reports it
	}
	return wanted{key: key, revision: o.GetAnnotations()[v1alpha1.AnnotationSourceRevision]}
}

// realization is how far a set of policies got on this cluster's nodes.
type realization struct {
	nodes v1alpha1.PolicyNodes
	why   []string // errors that nodes reported
}

// realized counts the nodes on which every one of these policies is in force at its revision.
func realized(policies []wanted, f *Facts) realization {
	r := realization{nodes: v1alpha1.PolicyNodes{Total: int32(len(f.Nodes))}}
	for _, name := range f.Nodes {
		all, why := onNode(policies, f.Agents[name])
		if all {
			r.nodes.Realized++
		}
		if why != "" {
			r.nodes.Failing = append(r.nodes.Failing, name)
			r.why = append(r.why, name+": "+why)
		}
	}
	slices.Sort(r.nodes.Failing)
	slices.Sort(r.why)
	r.nodes.Failing = r.nodes.Failing[:min(len(r.nodes.Failing), maxFailing)]
	return r
}

func onNode(policies []wanted, agent *v1alpha1.MeshNode) (all bool, why string) {
	if agent == nil {
		return false, ""
	}
	have := make(map[string]v1alpha1.NodePolicy, len(agent.Status.Policies))
	for _, p := range agent.Status.Policies {
		have[p.Key] = p
	}
	all = true
	for _, w := range policies {
		p, there := have[w.key]
		if there && p.Error != "" {
			return false, w.key + ": " + p.Error
		}
		all = all && there && p.Revision == w.revision
	}
	return all, ""
}

func (r realization) complete() bool { return r.nodes.Realized == r.nodes.Total }

func (s *Status) writePolicies(ctx context.Context, f *Facts) error {
	if f.Mesh == nil {
		return nil
	}
	cluster := f.Mesh.Spec.ClusterName
	var errs []error
	var mesh v1alpha1.MeshNetworkPolicyList
	if err := s.Client.List(ctx, &mesh); err != nil {
		return fmt.Errorf("list MeshNetworkPolicies: %w", err)
	}
	for i := range mesh.Items {
		p := &mesh.Items[i]
		before := p.DeepCopy()
		setPolicyStatus(&p.Status, p.Generation, wantedPolicy(cluster, "MeshNetworkPolicy", p), f)
		errs = append(errs, s.patch(ctx, before, p))
	}
	var wide v1alpha1.ClusterMeshNetworkPolicyList
	if err := s.Client.List(ctx, &wide); err != nil {
		return fmt.Errorf("list ClusterMeshNetworkPolicies: %w", err)
	}
	for i := range wide.Items {
		p := &wide.Items[i]
		before := p.DeepCopy()
		setPolicyStatus(&p.Status, p.Generation, wantedPolicy(cluster, "ClusterMeshNetworkPolicy", p), f)
		errs = append(errs, s.patch(ctx, before, p))
	}
	return errors.Join(errs...)
}

func setPolicyStatus(st *v1alpha1.MeshPolicyStatus, generation int64, w wanted, f *Facts) {
	r := realized([]wanted{w}, f)
	st.ObservedGeneration = generation
	st.Nodes = r.nodes
	if r.complete() {
		st.AppliedRevision = w.revision
	}
	set := condition.Setter{Conditions: &st.Conditions, Generation: generation}
	var p *problem
	switch {
	case w.key == "":
		p = &problem{"NotExported", "its name can't be a record's", true}
	case len(r.why) > 0:
		p = &problem{"NodesFailing", r.why[0], true}
	case !r.complete():
		p = &problem{reason: "Progressing", message: fmt.Sprintf("in force on %d of %d nodes", r.nodes.Realized, r.nodes.Total)}
	}
	sum(set, p, "in force on all %d nodes", r.nodes.Total)
}

// writeSources counts the nodes on which everything of a PolicySource is in force. The rest of its status belongs to
// the gitops package.
func (s *Status) writeSources(ctx context.Context, f *Facts) error {
	if f.Mesh == nil {
		return nil
	}
	var sources v1alpha1.PolicySourceList
	if err := s.Client.List(ctx, &sources); err != nil {
		return fmt.Errorf("list PolicySources: %w", err)
	}
	var errs []error
	for i := range sources.Items {
		src := &sources.Items[i]
		if src.Status.LastAppliedRevision == "" {
			continue
		}
		before := src.DeepCopy()
		src.Status.Nodes = realized(wantedOf(f.Mesh.Spec.ClusterName, src), f).nodes
		errs = append(errs, s.patch(ctx, before, src))
	}
	return errors.Join(errs...)
}

func wantedOf(cluster string, src *v1alpha1.PolicySource) []wanted {
	var out []wanted
	for _, e := range src.Status.Inventory {
		key, err := record.Key(&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Policy{
			Policy: &recordv1.Policy{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name},
		}})
		if err != nil {
			continue
		}
		out = append(out, wanted{key: key, revision: src.Status.LastAppliedRevision})
	}
	return out
}
