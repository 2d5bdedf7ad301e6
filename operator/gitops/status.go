// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/condition"
)

// Reasons of a PolicySource's conditions.
const (
	ReasonSucceeded   = "ReconciliationSucceeded"
	ReasonProgressing = "Progressing"
	ReasonRetrying    = "ProgressingWithRetry"
	ReasonFetchFailed = "FetchFailed"
	ReasonBuildFailed = "BuildFailed"
	ReasonApplyFailed = "ApplyFailed"
	ReasonSuspended   = "Suspended"
)

// maxNote is the API's limit for an event's note.
const maxNote = 1024

func isBuildError(err error) bool {
	var b *BuildError
	return errors.As(err, &b)
}

func setterFor(src *v1alpha1.PolicySource) condition.Setter {
	return condition.Setter{Conditions: &src.Status.Conditions, Generation: src.Generation}
}

// reportProgress says that a new generation is being looked at. Looks that are only due by the clock don't say so:
// Ready would flicker at every interval.
func (r *Reconciler) reportProgress(ctx context.Context, src *v1alpha1.PolicySource) error {
	if src.Status.ObservedGeneration == src.Generation {
		return nil
	}
	before := src.DeepCopy()
	src.Status.ObservedGeneration = src.Generation
	set := setterFor(src)
	set.True(condition.Reconciling, ReasonProgressing, "looking at generation %d", src.Generation)
	set.Unknown(condition.Ready, ReasonProgressing, "looking at generation %d", src.Generation)
	set.Remove(condition.Stalled)
	_, err := condition.Patch(ctx, r.Client, before, src)
	return err
}

func (r *Reconciler) reportSuspended(ctx context.Context, src *v1alpha1.PolicySource) error {
	before := src.DeepCopy()
	src.Status.ObservedGeneration = src.Generation
	set := setterFor(src)
	set.Remove(condition.Reconciling)
	handleRequest(src)
	if c := src.Status.Conditions; len(c) == 0 {
		set.Unknown(condition.Ready, ReasonSuspended, "suspended before anything was applied")
	}
	_, err := condition.Patch(ctx, r.Client, before, src)
	return err
}

func (r *Reconciler) recordInventory(ctx context.Context, src *v1alpha1.PolicySource, entries []v1alpha1.InventoryEntry, from *Tree) error {
	before := src.DeepCopy()
	src.Status.Inventory, src.Status.InventoryRevision, src.Status.InventoryURL = entries, from.Revision, from.URL
	_, err := condition.Patch(ctx, r.Client, before, src)
	return err
}

func (r *Reconciler) reportOutcome(ctx context.Context, src *v1alpha1.PolicySource, out outcome) error {
	before := src.DeepCopy()
	handleRequest(src)
	if out.tree != nil {
		src.Status.LastAttemptedRevision = out.tree.Revision
	}
	if out.err == nil {
		reportSuccess(src, out)
	} else {
		reportFailure(src, out.err)
	}
	if _, err := condition.Patch(ctx, r.Client, before, src); err != nil {
		return err
	}
	r.announce(before, src, out)
	return nil
}

func reportSuccess(src *v1alpha1.PolicySource, out outcome) {
	if out.applied {
		now := metav1.Now()
		src.Status.LastAppliedTime = &now
		src.Status.LastAppliedRevision = out.tree.Revision
		src.Status.Inventory = out.plan.Inventory
	}
	set := setterFor(src)
	set.True(condition.Ready, ReasonSucceeded, "Applied revision: %s", src.Status.LastAppliedRevision)
	set.Remove(condition.Reconciling, condition.Stalled)
}

func reportFailure(src *v1alpha1.PolicySource, err error) {
	set := setterFor(src)
	kept := ""
	if rev := src.Status.LastAppliedRevision; rev != "" {
		kept = "; revision " + rev + " stays in force"
	}
	switch {
	case isBuildError(err):
		set.False(condition.Ready, ReasonBuildFailed, "%v%s", err, kept)
		// Only a new commit helps.
		set.True(condition.Stalled, ReasonBuildFailed, "%v", err)
		set.Remove(condition.Reconciling)
	case isFetchError(err):
		set.False(condition.Ready, ReasonFetchFailed, "%v%s", err, kept)
		set.True(condition.Reconciling, ReasonRetrying, "trying again after: %v", err)
		set.Remove(condition.Stalled)
	default:
		set.False(condition.Ready, ReasonApplyFailed, "%v", err)
		set.True(condition.Reconciling, ReasonRetrying, "trying again after: %v", err)
		set.Remove(condition.Stalled)
	}
}

// handleRequest notes that the annotation reconcile.fluxcd.io/requestedAt was seen.
func handleRequest(src *v1alpha1.PolicySource) {
	if v, ok := meta.ReconcileAnnotationValue(src.GetAnnotations()); ok {
		src.Status.SetLastHandledReconcileRequest(v)
	}
}

// announce logs and sends an event when something changed that a person would want to know.
func (r *Reconciler) announce(before, src *v1alpha1.PolicySource, out outcome) {
	key := client.ObjectKeyFromObject(src)
	switch {
	case out.err != nil && condition.Changed(before.Status.Conditions, src.Status.Conditions, condition.Ready):
		r.Log.Warn("policy source failed", "policySource", key, "error", out.err)
		r.event(src, corev1.EventTypeWarning, readyReason(src), out.err.Error())
	case out.err == nil && out.applied:
		r.Log.Info("policies applied", "policySource", key, "revision", out.tree.Revision, "objects", len(out.plan.Apply), "pruned", len(out.pruned))
		if before.Status.LastAppliedRevision != src.Status.LastAppliedRevision || len(out.pruned) > 0 {
			r.event(src, corev1.EventTypeNormal, ReasonSucceeded, fmt.Sprintf("applied %d policies at %s, pruned %v", len(out.plan.Apply), out.tree.Revision, out.pruned))
		}
	}
}

func readyReason(src *v1alpha1.PolicySource) string {
	for _, c := range src.Status.Conditions {
		if c.Type == condition.Ready {
			return c.Reason
		}
	}
	return ReasonApplyFailed
}

func (r *Reconciler) event(src *v1alpha1.PolicySource, typ, reason, note string) {
	if len(note) > maxNote {
		note = note[:maxNote-3] + "..."
	}
	r.Events.Eventf(src, nil, typ, reason, "Reconcile", "%s", note)
}
