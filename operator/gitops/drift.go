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

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// newTyped gives an empty object of a policy kind; typed objects come from the cache.
func newTyped(kind string) client.Object {
	switch kind {
	case "NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "MeshNetworkPolicy":
		return &v1alpha1.MeshNetworkPolicy{}
	case "ClusterMeshNetworkPolicy":
		return &v1alpha1.ClusterMeshNetworkPolicy{}
	}
	return nil
}

// fingerprint sums up what a policy says and how it is marked; status and bookkeeping don't count.
func fingerprint(o client.Object) (string, error) {
	var spec any
	switch p := o.(type) {
	case *networkingv1.NetworkPolicy:
		spec = p.Spec
	case *v1alpha1.MeshNetworkPolicy:
		spec = p.Spec
	case *v1alpha1.ClusterMeshNetworkPolicy:
		spec = p.Spec
	default:
		return "", fmt.Errorf("%T is no policy", o)
	}
	data, err := json.Marshal([]any{spec, o.GetLabels(), o.GetAnnotations(), o.GetDeletionTimestamp() != nil})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// fingerprintUnstructured takes the way over the typed object, so that what was applied and what the cache holds are
// summed up alike.
func fingerprintUnstructured(u *unstructured.Unstructured) (string, error) {
	typed := newTyped(u.GetKind())
	if typed == nil {
		return "", fmt.Errorf("%s is no policy", u.GetKind())
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return "", err
	}
	return fingerprint(typed)
}

// drifted says whether an object in the cluster no longer is what was applied.
func drifted(ctx context.Context, r client.Reader, prints map[string]string, entries []v1alpha1.InventoryEntry) (bool, error) {
	for _, e := range entries {
		o := newTyped(e.Kind)
		if o == nil {
			continue
		}
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
