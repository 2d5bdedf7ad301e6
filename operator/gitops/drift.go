// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// fingerprint sums up which object a policy is, what it says and how it is marked; status and bookkeeping don't count.
func fingerprint(o client.Object) (string, error) {
	kind, known := v1alpha1.PolicyKindOf(o)
	if !known {
		return "", fmt.Errorf("%T is no policy", o)
	}
	data, err := json.Marshal([]any{o.GetUID(), kind.Spec(o), o.GetLabels(), o.GetAnnotations(), o.GetDeletionTimestamp() != nil})
	if err != nil {
		return "", fmt.Errorf("sum up %s %s: %w", kind.Name, client.ObjectKeyFromObject(o), err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// state is what is known of an object that was applied, or would be.
type state struct {
	print   string
	uid     string // empty for an object that isn't there yet
	content string // record.SpecContent
}

// stateOf takes the way over the typed object, so that what was applied and what the cache holds are summed up alike.
func stateOf(u *unstructured.Unstructured) (state, error) {
	kind, known := v1alpha1.PolicyKindNamed(u.GetKind())
	if !known {
		return state{}, fmt.Errorf("%s is no policy", u.GetKind())
	}
	typed := kind.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return state{}, err
	}
	print, err := fingerprint(typed)
	if err != nil {
		return state{}, err
	}
	spec, err := json.Marshal(kind.Spec(typed))
	if err != nil {
		return state{}, err
	}
	return state{print, string(u.GetUID()), record.SpecContent(spec)}, nil
}

// drifted says whether an object in the cluster no longer is what was applied.
func drifted(ctx context.Context, r client.Reader, were map[string]state, entries []v1alpha1.InventoryEntry) (bool, error) {
	for _, e := range entries {
		kind, known := v1alpha1.PolicyKindNamed(e.Kind)
		if !known {
			continue
		}
		o := kind.New()
		err := r.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: e.Name}, o)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", refOf(e.Kind, e.Namespace, e.Name), err)
		}
		print, err := fingerprint(o)
		if err != nil {
			return false, err
		}
		if were[refOf(e.Kind, e.Namespace, e.Name)].print != print {
			return true, nil
		}
	}
	return false, nil
}

// prints gathers states from several goroutines.
type prints struct {
	mu     sync.Mutex
	states map[string]state // by ref
}

func newPrints() *prints { return &prints{states: map[string]state{}} }

func (p *prints) add(o Object, is *unstructured.Unstructured) error {
	s, err := stateOf(is)
	if err != nil {
		return fmt.Errorf("read back %s: %w", o.ref(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states[o.ref()] = s
	return nil
}

// match says whether an object in the cluster is as it would be after an apply.
func (p *prints) match(o Object, live *unstructured.Unstructured) bool {
	if p == nil || live == nil {
		return false
	}
	is, err := stateOf(live)
	return err == nil && is == p.states[o.ref()]
}
