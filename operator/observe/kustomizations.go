// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/operator/export"
)

// askFlux is how often Kustomizations are read. They are asked for and not watched: their CRD may be missing or come
// later, and only those matter that applied a policy.
const askFlux = 5 * time.Second

var kustomizationKind = schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"}

// Kustomizations tells an Observer which revision Flux applied, so that policies from Flux carry their commit.
//
// +kubebuilder:rbac:groups=kustomize.toolkit.fluxcd.io,resources=kustomizations,verbs=get
type Kustomizations struct {
	// Live reads past the cache.
	Live     client.Reader
	Observer *Observer

	known map[export.KustomizationName]export.Kustomization
}

// NeedLeaderElection says that every replica asks.
func (k *Kustomizations) NeedLeaderElection() bool { return false }

// Start runs until ctx ends.
func (k *Kustomizations) Start(ctx context.Context) error {
	tick := time.NewTicker(askFlux)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.ask(ctx)
		}
	}
}

func (k *Kustomizations) ask(ctx context.Context) {
	if k.known == nil {
		k.known = map[export.KustomizationName]export.Kustomization{}
	}
	for _, name := range k.Observer.kustomizations() {
		is, err := k.read(ctx, name)
		if err != nil {
			// Policies keep the revision that was known; without Flux there is none to know.
			k.Observer.log.Debug("read a Flux Kustomization", "error", err)
			continue
		}
		if was, ok := k.known[name]; ok && was == is {
			continue
		}
		k.known[name] = is
		k.Observer.change(func(s *export.State) { s.SetKustomization(name.Namespace, name.Name, &is) })
	}
}

func (k *Kustomizations) read(ctx context.Context, name export.KustomizationName) (export.Kustomization, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kustomizationKind)
	err := k.Live.Get(ctx, client.ObjectKey{Namespace: name.Namespace, Name: name.Name}, u)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return export.Kustomization{}, nil
	}
	if err != nil {
		return export.Kustomization{}, fmt.Errorf("read Kustomization %s/%s: %w", name.Namespace, name.Name, err)
	}
	revision, _, _ := unstructured.NestedString(u.Object, "status", "lastAppliedRevision")
	path, _, _ := unstructured.NestedString(u.Object, "spec", "path")
	return export.Kustomization{Revision: revision, Path: path}, nil
}

func (o *Observer) kustomizations() []export.KustomizationName {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Kustomizations()
}
