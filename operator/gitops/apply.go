// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// FieldManager is the name under which policies from Git are applied.
const FieldManager = "fairlead-gitops"

// parallel requests to the API server while a tree is checked or applied.
const parallel = 8

// applier carries plans out.
type applier struct{ client client.Client }

// check asks the API server about every object before any is applied: whether somebody else's PolicySource owns it,
// and whether admission would accept it. It gives what each object would be.
func (a applier) check(ctx context.Context, src *v1alpha1.PolicySource, objects []Object) (*prints, error) {
	var problems collectedProblems
	would := newPrints()
	err := each(ctx, objects, func(ctx context.Context, o Object) error {
		live, err := a.live(ctx, o)
		if err != nil {
			return err
		}
		if owner, foreign := foreignOwner(live, src); foreign {
			problems.add(o, fmt.Sprintf("%s is managed by PolicySource %s", o.ref(), owner))
			return nil
		}
		result := o.DeepCopy()
		err = a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(result),
			client.FieldOwner(FieldManager), client.ForceOwnership, client.DryRunAll)
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			problems.add(o, rejection(err))
			return nil
		}
		if err != nil {
			return fmt.Errorf("check %s of %s: %w", o.ref(), o.Path, err)
		}
		if live == nil {
			result.SetUID("") // a dry run makes one up
		}
		return would.add(o, result)
	})
	if err != nil {
		return nil, err
	}
	return would, problems.err()
}

// apply writes every object that is not yet as it would be (nil: every object), and gives what each is now. An object that
// isn't in the inventory is written however it looks: it is somebody else's until then.
func (a applier) apply(ctx context.Context, objects []Object, would *prints, inventory []v1alpha1.InventoryEntry) (*prints, error) {
	uids := uidsOf(inventory)
	are := newPrints()
	err := each(ctx, objects, func(ctx context.Context, o Object) error {
		live, err := a.live(ctx, o)
		if err != nil {
			return err
		}
		others := writtenByOthers(live)
		if !others && would.match(o, live) && uids[o.ref()] == string(live.GetUID()) {
			return are.add(o, live)
		}
		if others {
			if err := a.overwrite(ctx, o, live); err != nil {
				return err
			}
		}
		applied := o.DeepCopy()
		err = a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner(FieldManager), client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("apply %s of %s: %w", o.ref(), o.Path, err)
		}
		return are.add(o, applied)
	})
	return are, err
}

// writtenByOthers says whether somebody else wrote into a policy's spec. What this operator wrote in overwrite counts too: it
// isn't tracked as applied, so that an apply doesn't take away what a later commit leaves out.
func writtenByOthers(live *unstructured.Unstructured) bool {
	if live == nil {
		return false
	}
	return slices.ContainsFunc(live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		applied := m.Manager == FieldManager && m.Operation == metav1.ManagedFieldsOperationApply
		return !applied && m.Subresource == "" && ownsSpec(m)
	})
}

// overwrite makes a policy's spec what the repository says. Server-side apply alone would leave a rule that somebody added with
// kubectl edit. Having it take over all fields and drop those that aren't the repository's doesn't do either: where the last
// field of a struct goes it leaves a null, which the API server refuses.
func (a applier) overwrite(ctx context.Context, o Object, live *unstructured.Unstructured) error {
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/spec", "value": o.Object["spec"]}})
	if err != nil {
		return fmt.Errorf("overwrite %s: %w", o.ref(), err)
	}
	if err := a.client.Patch(ctx, live, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("overwrite %s: %w", o.ref(), err)
	}
	return nil
}

func ownsSpec(m metav1.ManagedFieldsEntry) bool {
	if m.FieldsV1 == nil {
		return false
	}
	var fields map[string]json.RawMessage
	err := json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields)
	_, spec := fields["f:spec"]
	return err == nil && spec
}

// prune deletes what a source no longer holds, if it is still marked as this source's.
func (a applier) prune(ctx context.Context, src *v1alpha1.PolicySource, entries []v1alpha1.InventoryEntry) ([]string, error) {
	var pruned []string
	for _, e := range entries {
		o := objectOf(e)
		live, err := a.live(ctx, o)
		if err != nil {
			return pruned, err
		}
		if live == nil || !managedBy(live, src) {
			continue
		}
		uid, version := live.GetUID(), live.GetResourceVersion()
		err = a.client.Delete(ctx, live, client.Preconditions{UID: &uid, ResourceVersion: &version})
		if client.IgnoreNotFound(err) != nil {
			return pruned, fmt.Errorf("prune %s: %w", o.ref(), err)
		}
		pruned = append(pruned, o.ref())
	}
	return pruned, nil
}

func (a applier) live(ctx context.Context, o Object) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(o.GroupVersionKind())
	err := a.client.Get(ctx, client.ObjectKeyFromObject(o), u)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.ref(), err)
	}
	return u, nil
}

func objectOf(e v1alpha1.InventoryEntry) Object {
	u := &unstructured.Unstructured{}
	kind, _ := v1alpha1.PolicyKindNamed(e.Kind)
	u.SetGroupVersionKind(kind.GroupVersion.WithKind(e.Kind))
	u.SetNamespace(e.Namespace)
	u.SetName(e.Name)
	return Object{Unstructured: u, Path: e.Path}
}

func managedBy(o client.Object, src *v1alpha1.PolicySource) bool {
	l := o.GetLabels()
	return l[v1alpha1.LabelSourceName] == src.Name && l[v1alpha1.LabelSourceNamespace] == src.Namespace
}

func foreignOwner(live *unstructured.Unstructured, src *v1alpha1.PolicySource) (string, bool) {
	if live == nil || managedBy(live, src) {
		return "", false
	}
	l := live.GetLabels()
	name := l[v1alpha1.LabelSourceName]
	return l[v1alpha1.LabelSourceNamespace] + "/" + name, name != ""
}

// rejection shortens the API server's answer to what its causes say; the object is named beside it.
func rejection(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		var causes []string
		for _, c := range status.Status().Details.Causes {
			if c.Field == "<nil>" {
				continue // "some rules were not checked because of the above"
			}
			causes = append(causes, strings.TrimSpace(c.Field+": "+c.Message))
		}
		if len(causes) > 0 {
			return strings.Join(causes, ", ")
		}
	}
	return err.Error()
}

// collectedProblems gathers problems from several goroutines.
type collectedProblems struct {
	mu   sync.Mutex
	list []Problem
}

func (c *collectedProblems) add(o Object, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, Problem{Path: o.Path, Line: o.Line, Message: o.ref() + ": " + message})
}

func (c *collectedProblems) err() error {
	if len(c.list) == 0 {
		return nil
	}
	sortProblems(c.list)
	return &BuildError{Problems: c.list}
}

func each(ctx context.Context, objects []Object, do func(context.Context, Object) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range objects {
		g.Go(func() error { return do(ctx, o) })
	}
	return g.Wait()
}
