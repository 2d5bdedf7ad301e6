// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/operator/aggregate"
	"github.com/fairlead-mesh/fairlead/operator/condition"
)

const (
	// policiesAPass bounds a pass, so that a commit of a thousand policies doesn't hold up the clusters' statuses.
	policiesAPass = 200
	// parallel requests to the API server.
	parallel = 8
)

// writePolicies writes the status of policies and PolicySources that are due, and says whether some are left.
func (s *Status) writePolicies(ctx context.Context) (more bool, err error) {
	d := s.ledger.take(policiesAPass)
	var g errgroup.Group
	g.SetLimit(parallel)
	var mu sync.Mutex
	var errs []error
	try := func(write func() error, touch func()) {
		g.Go(func() error {
			if err := write(); err != nil {
				touch()
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	for r, sum := range d.policies {
		try(func() error { return s.writePolicy(ctx, r, sum) }, func() { s.ledger.touchPolicy(r) })
	}
	for name, nodes := range d.sources {
		try(func() error { return s.writeSource(ctx, name, nodes) }, func() { s.ledger.touchSource(name) })
	}
	_ = g.Wait() // errors are in errs
	return d.more, errors.Join(errs...)
}

func (s *Status) writePolicy(ctx context.Context, r policyRef, sum aggregate.Policy) error {
	kind, known := v1alpha1.PolicyKindNamed(r.kind)
	if !known || kind.Status == nil && kind.Conditions == nil {
		return nil
	}
	o := kind.New()
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: r.name}, o); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("read %s %s/%s: %w", r.kind, r.namespace, r.name, err)
	}
	before, ok := o.DeepCopyObject().(v1alpha1.PolicyObject)
	if !ok {
		return fmt.Errorf("%s %s/%s: its copy is a %T", r.kind, r.namespace, r.name, o)
	}
	if kind.Status != nil {
		setPolicyStatus(kind.Status(o), o, sum)
	} else {
		setPolicyCondition(kind, o, sum)
	}
	return s.patch(ctx, before, o)
}

// setPolicyStatus says on how many nodes a policy is in force as it is written in the object o. What nodes enforce of an
// earlier generation, or of an object that had this name before, counts for nothing.
func setPolicyStatus(st *v1alpha1.MeshPolicyStatus, o metav1.Object, sum aggregate.Policy) {
	given := givenToAgents(o, sum)
	if !given {
		sum.Nodes.Realized = 0
	}
	complete := given && sum.Nodes.Realized == sum.Nodes.Total
	generation := o.GetGeneration()
	st.ObservedGeneration = generation
	st.Nodes = sum.Nodes
	if complete {
		st.AppliedRevision = sum.Want.Revision
	}
	set := condition.Setter{Conditions: &st.Conditions, Generation: generation}
	p := policyProblem(o, sum)
	summarize(set, p, "in force on all %d nodes", sum.Nodes.Total)
	if p == nil {
		inForce(set, condition.Ready, o, sum)
	}
}

// setPolicyCondition says in one condition whether a policy of others' is in force. The rest of its status is theirs.
func setPolicyCondition(kind v1alpha1.PolicyKind, o v1alpha1.PolicyObject, sum aggregate.Policy) {
	set := condition.Setter{Conditions: kind.Conditions(o), Generation: o.GetGeneration()}
	if kind.Timeless {
		set.Generation = 0 // the API server would drop it, and each look find a difference
	}
	if p := policyProblem(o, sum); p != nil {
		set.False(v1alpha1.ConditionPolicyReady, p.reason, "%s", p.message)
		return
	}
	inForce(set, v1alpha1.ConditionPolicyReady, o, sum)
}

// inForce says so in a condition, with what it means: whether the policy is audited, and what nodes warn about.
func inForce(set condition.Setter, typ string, o metav1.Object, sum aggregate.Policy) {
	reason, text := "Ready", fmt.Sprintf("in force on all %d nodes", sum.Nodes.Total)
	if by := auditedBy(o, sum.Want.Mode); len(by) > 0 {
		reason = "Audited"
		text += ", audited by " + strings.Join(by, " and by ") + ": what it denies passes and is reported"
	}
	if sum.Warning != "" {
		reason = "Warning"
		text += ", and not quite as written: " + sum.Warning
	}
	set.True(typ, reason, "%s", text)
}

// auditedBy names all that have a policy audited: it is enforced only once none of them does.
func auditedBy(o metav1.Object, mode record.Mode) []string {
	var own v1alpha1.PolicyMode
	switch p := o.(type) {
	case *v1alpha1.MeshNetworkPolicy:
		own = p.Spec.Mode
	case *v1alpha1.ClusterMeshNetworkPolicy:
		own = p.Spec.Mode
	}
	var by []string
	if own == v1alpha1.PolicyAudit {
		by = append(by, "its spec.mode")
	}
	if mode.ByNamespace {
		by = append(by, "its namespace")
	}
	if mode.ByCluster {
		by = append(by, "the ClusterMesh")
	}
	return by
}

// givenToAgents is true if agents are given the object as it is now: this generation of this very object.
func givenToAgents(o metav1.Object, sum aggregate.Policy) bool {
	return sum.Exported && sum.Want.Generation == o.GetGeneration() && sum.Want.UID == string(o.GetUID())
}

func policyProblem(o metav1.Object, sum aggregate.Policy) *problem {
	switch {
	case !givenToAgents(o, sum): // errors are of what was before
		return &problem{reason: "Progressing", message: fmt.Sprintf("generation %d is not with the agents yet", o.GetGeneration())}
	case sum.Why != "":
		return &problem{"NodesFailing", sum.Why, true}
	case sum.Nodes.Realized != sum.Nodes.Total:
		return &problem{reason: "Progressing", message: fmt.Sprintf("in force on %d of %d nodes", sum.Nodes.Realized, sum.Nodes.Total)}
	}
	return nil
}

// writeSource writes on how many nodes everything of a PolicySource is in force. The rest of its status belongs to the
// gitops package.
func (s *Status) writeSource(ctx context.Context, name aggregate.SourceName, nodes v1alpha1.PolicyNodes) error {
	src := &v1alpha1.PolicySource{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: name.Namespace, Name: name.Name}, src); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("read PolicySource %s/%s: %w", name.Namespace, name.Name, err)
	}
	before := src.DeepCopy()
	src.Status.Nodes = nodes
	return s.patch(ctx, before, src)
}
