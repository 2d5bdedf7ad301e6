// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Finalizer lets a deleted PolicySource take its policies along.
const Finalizer = "fairlead.dev/policy-source"

const (
	fetchTimeout = time.Minute
	minInterval  = time.Second
	// retryAtMost bounds the wait after a failed fetch when the interval is long.
	retryAtMost = 15 * time.Second
)

// Reconciler keeps the cluster's policies as the repositories say. It runs on the leader.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=policysources,verbs=get;list;watch;patch;update
// +kubebuilder:rbac:groups=fairlead.dev,resources=policysources/status,verbs=get;patch;update
// +kubebuilder:rbac:groups=fairlead.dev,resources=policysources/finalizers,verbs=update
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshnetworkpolicies;clustermeshnetworkpolicies,verbs=get;list;watch;create;patch;update;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;update;delete
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies,verbs=get;list;watch;create;patch;update;delete
// +kubebuilder:rbac:groups=source.toolkit.fluxcd.io,resources=gitrepositories;ocirepositories;buckets;externalartifacts,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get
type Reconciler struct {
	Client client.Client
	// Live reads past the cache: Secrets and Flux sources, which aren't watched.
	Live   client.Reader
	Events recorder.EventRecorder
	Log    *slog.Logger
	Limits Limits

	mu     sync.Mutex
	memory map[client.ObjectKey]*sourceMemory
}

// sourceMemory is what is known of a source between two looks, so that an unchanged branch costs one request to Git and
// none to the API server. Losing it costs one apply that changes nothing.
type sourceMemory struct {
	tree       *Tree            // last fetched
	fetchedFor int64            // the generation it was fetched for
	applied    string           // revision that prints belong to
	appliedFor int64            // and the generation
	prints     map[string]state // what policies were after the last apply
	lastGood   []Object         // what was applied last
	lastTree   *Tree            // and what they came from, without its files
}

// outcome is what one look at a source came to.
type outcome struct {
	tree    *Tree
	plan    *Plan
	applied bool // something was written
	pruned  []string
	err     error
}

// Reconcile looks at one PolicySource.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (reconcile.Result, error) {
	src := &v1alpha1.PolicySource{}
	if err := r.Client.Get(ctx, req.NamespacedName, src); err != nil {
		r.forget(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !src.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, r.finalize(ctx, src)
	}
	if src.Spec.Suspend {
		return reconcile.Result{}, r.reportSuspended(ctx, src)
	}
	if !controllerutil.ContainsFinalizer(src, Finalizer) {
		before := src.DeepCopy()
		controllerutil.AddFinalizer(src, Finalizer)
		if err := r.Client.Patch(ctx, src, client.MergeFrom(before)); err != nil {
			return reconcile.Result{}, fmt.Errorf("add finalizer to PolicySource %s: %w", req, err)
		}
	}
	if err := r.reportProgress(ctx, src); err != nil {
		return reconcile.Result{}, err
	}
	out := r.look(ctx, src)
	if err := r.reportOutcome(ctx, src, out); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: nextLook(src, out.err)}, nil
}

func nextLook(src *v1alpha1.PolicySource, err error) time.Duration {
	interval := max(src.Spec.Interval.Duration, minInterval)
	if err != nil && !isBuildError(err) {
		return min(interval, retryAtMost)
	}
	return interval
}

// look fetches, parses, checks and applies. The first error ends it with the cluster as it was, apart from an API
// server that fails in the middle of applying: the next look goes on from there.
func (r *Reconciler) look(ctx context.Context, src *v1alpha1.PolicySource) outcome {
	key := client.ObjectKeyFromObject(src)
	mem := r.remember(key)
	fctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	tree, err := r.fetch(fctx, src, mem)
	if err != nil {
		r.holdLastGood(ctx, src, mem)
		return outcome{err: err}
	}
	mem.tree, mem.fetchedFor = tree, src.Generation
	out := outcome{tree: tree}

	if r.inForce(ctx, src, mem) {
		return out
	}
	objects, err := Parse(tree.Files, src.Spec.TargetNamespace, r.Limits)
	if err != nil {
		out.err = err
		r.holdLastGood(ctx, src, mem)
		return out
	}
	plan := MakePlan(src, tree, objects)
	out.plan = &plan
	out.pruned, out.applied, out.err = r.carryOut(ctx, src, mem, &plan)
	if out.err != nil && !out.applied {
		r.holdLastGood(ctx, src, mem)
	}
	return out
}

// holdLastGood keeps the last good policies in force while the repository is broken or out of reach: somebody who
// deletes one by hand just then finds it put back all the same.
func (r *Reconciler) holdLastGood(ctx context.Context, src *v1alpha1.PolicySource, mem *sourceMemory) {
	key := client.ObjectKeyFromObject(src)
	r.mu.Lock()
	prints, objects := mem.prints, mem.lastGood
	r.mu.Unlock()
	if len(objects) == 0 {
		return
	}
	changed, err := drifted(ctx, r.Client, prints, src.Status.Inventory)
	if err == nil && !changed {
		return
	}
	are, err := applier{r.Client}.apply(ctx, objects, nil, nil)
	if err == nil {
		entries := make([]v1alpha1.InventoryEntry, 0, len(objects))
		for _, o := range objects {
			entries = append(entries, entryOf(o))
		}
		err = r.recordInventory(ctx, src, proven(merged(entries, src.Status.Inventory), are), mem.lastTree)
	}
	if err != nil {
		r.Log.Warn("put back the last good policies", "policySource", key, "error", err)
		return
	}
	r.mu.Lock()
	mem.prints = are.states
	r.mu.Unlock()
	r.Log.Info("policies were changed in the cluster; put back as of the last good revision", "policySource", key, "revision", src.Status.LastAppliedRevision)
}

func (r *Reconciler) carryOut(ctx context.Context, src *v1alpha1.PolicySource, mem *sourceMemory, plan *Plan) ([]string, bool, error) {
	a := applier{r.Client}
	would, err := a.check(ctx, src, plan.Apply)
	if err != nil {
		return nil, false, err
	}
	// Before the first write: whatever happens next, the inventory names everything that may be there.
	known := src.Status.Inventory
	if err := r.recordInventory(ctx, src, proven(plan.Union, would), mem.tree); err != nil {
		return nil, false, err
	}
	are, err := a.apply(ctx, plan.Apply, would, known)
	if err != nil {
		return nil, true, err
	}
	plan.Inventory = proven(plan.Inventory, are)
	pruned, err := a.prune(ctx, src, plan.Prune)
	if err != nil {
		return pruned, true, err
	}
	r.mu.Lock()
	mem.prints, mem.applied, mem.appliedFor, mem.lastGood = are.states, mem.tree.Revision, src.Generation, plan.Apply
	mem.lastTree = &Tree{URL: mem.tree.URL, Revision: mem.tree.Revision}
	r.mu.Unlock()
	return pruned, true, nil
}

// inForce says whether the fetched revision is applied and nobody has changed it since.
func (r *Reconciler) inForce(ctx context.Context, src *v1alpha1.PolicySource, mem *sourceMemory) bool {
	r.mu.Lock()
	prints, applied, appliedFor := mem.prints, mem.applied, mem.appliedFor
	r.mu.Unlock()
	if applied != mem.tree.Revision || appliedFor != src.Generation || src.Status.LastAppliedRevision != applied {
		return false
	}
	if len(prints) != len(src.Status.Inventory) {
		return false
	}
	changed, err := drifted(ctx, r.Client, prints, src.Status.Inventory)
	if err != nil {
		r.Log.Warn("compare policies with what was applied", "policySource", client.ObjectKeyFromObject(src), "error", err)
		return false
	}
	if changed {
		r.Log.Info("policies were changed in the cluster; applying them again", "policySource", client.ObjectKeyFromObject(src), "revision", applied)
	}
	return !changed
}

func (r *Reconciler) fetch(ctx context.Context, src *v1alpha1.PolicySource, mem *sourceMemory) (*Tree, error) {
	dir, err := cleanPath(src.Spec.Path)
	if err != nil {
		return nil, &BuildError{Problems: []Problem{{Path: src.Spec.Path, Message: err.Error()}}}
	}
	known := mem.tree
	if mem.fetchedFor != src.Generation {
		known = nil // path or url may be another
	}
	if ref := src.Spec.SourceRef; ref != nil {
		a, err := findArtifact(ctx, r.Live, src.Namespace, *ref)
		if err != nil {
			return nil, err
		}
		if known != nil && known.Revision == a.revision && known.URL == a.origin {
			return known, nil
		}
		return fetchArtifact(ctx, a, dir, r.Limits)
	}
	secret, err := r.secret(ctx, src)
	if err != nil {
		return nil, err
	}
	login, err := loginFor(src.Spec.Git.URL, secret)
	if err != nil {
		return nil, notFetched("log in at %s: %w", src.Spec.Git.URL, err)
	}
	return fetchGit(ctx, gitRequest{URL: src.Spec.Git.URL, Branch: src.Spec.Git.Branch, Path: dir, Login: login, Known: known}, r.Limits)
}

func (r *Reconciler) secret(ctx context.Context, src *v1alpha1.PolicySource) (map[string][]byte, error) {
	ref := src.Spec.Git.SecretRef
	if ref == nil {
		return nil, nil
	}
	s := &corev1.Secret{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: src.Namespace, Name: ref.Name}, s)
	if apierrors.IsNotFound(err) {
		return nil, notFetched("there is no Secret %s/%s", src.Namespace, ref.Name)
	}
	if err != nil {
		return nil, notFetched("read Secret %s/%s: %w", src.Namespace, ref.Name, err)
	}
	return s.Data, nil
}

func (r *Reconciler) finalize(ctx context.Context, src *v1alpha1.PolicySource) error {
	if src.Spec.Prune {
		if _, err := (applier{r.Client}).prune(ctx, src, src.Status.Inventory); err != nil {
			return err
		}
	}
	r.forget(client.ObjectKeyFromObject(src))
	before := src.DeepCopy()
	if !controllerutil.RemoveFinalizer(src, Finalizer) {
		return nil
	}
	if err := r.Client.Patch(ctx, src, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer of PolicySource %s: %w", client.ObjectKeyFromObject(src), err)
	}
	return nil
}

func (r *Reconciler) remember(key client.ObjectKey) *sourceMemory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.memory == nil {
		r.memory = map[client.ObjectKey]*sourceMemory{}
	}
	if r.memory[key] == nil {
		r.memory[key] = &sourceMemory{}
	}
	return r.memory[key]
}

func (r *Reconciler) forget(key client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.memory, key)
}
