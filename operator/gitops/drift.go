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
)

// fingerprint sums up what a policy says and how it is marked; status and bookkeeping don't count.
func fingerprint(o client.Object) (string, error) {
	kind, known := v1alpha1.PolicyKindOf(o)
	if !known {
		return "", fmt.Errorf("%T is no policy", o)
	}
	data, err := json.Marshal([]any{kind.Spec(o), o.GetLabels(), o.GetAnnotations(), o.GetDeletionTimestamp() != nil})
	if err != nil {
		return "", fmt.Errorf("sum up %s %s: %w", kind.Name, client.ObjectKeyFromObject(o), err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// fingerprintUnstructured takes the way over the typed object, so that what was applied and what the cache holds are
// summed up alike.
func fingerprintUnstructured(u *unstructured.Unstructured) (string, error) {
	kind, known := v1alpha1.PolicyKindNamed(u.GetKind())
	if !known {
		return "", fmt.Errorf("%s is no policy", u.GetKind())
	}
	typed := kind.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return "", err
	}
	return fingerprint(typed)
}

// drifted says whether an object in the cluster no longer is what was applied.
func drifted(ctx context.Context, r client.Reader, prints map[string]string, entries []v1alpha1.InventoryEntry) (bool, error) {
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
		if prints[refOf(e.Kind, e.Namespace, e.Name)] != print {
			return true, nil
		}
	}
	return false, nil
}

// prints gathers fingerprints from several goroutines.
type prints struct {
	mu sync.Mutex
	of map[string]string // by ref
}

func newPrints() *prints { return &prints{of: map[string]string{}} }

func (p *prints) add(o Object, is *unstructured.Unstructured) error {
	print, err := fingerprintUnstructured(is)
	if err != nil {
		return fmt.Errorf("read back %s: %w", o.ref(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[o.ref()] = print
	return nil
}

// match says whether an object in the cluster is as it would be after an apply.
func (p *prints) match(o Object, live *unstructured.Unstructured) bool {
	if p == nil || live == nil {
		return false
	}
	print, err := fingerprintUnstructured(live)
	return err == nil && print == p.of[o.ref()]
}
