// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Controller makes the controller that runs the reconciler. Besides PolicySources it watches the policies themselves: one
// that is changed or deleted by hand is put right at once, not at the next interval.
func (r *Reconciler) Controller(c cache.Cache) (controller.Controller, error) {
	unchecked := true // tests run several operators in one process
	ctl, err := controller.NewUnmanaged("policysource", controller.Options{
		Reconciler: r, MaxConcurrentReconciles: 4, SkipNameValidation: &unchecked, Logger: logr.FromSlogHandler(r.Log.Handler()),
	})
	if err != nil {
		return nil, fmt.Errorf("make the controller: %w", err)
	}
	worth := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, requested{})
	if err := ctl.Watch(source.Kind[client.Object](c, &v1alpha1.PolicySource{}, &handler.EnqueueRequestForObject{}, worth)); err != nil {
		return nil, fmt.Errorf("watch PolicySources: %w", err)
	}
	for _, kind := range v1alpha1.PolicyKinds() {
		if kind.CRD != "" {
			continue // may not be installed
		}
		if err := r.Watch(ctl, c, kind); err != nil {
			return nil, err
		}
	}
	return ctl, nil
}

// Watch has a controller watch policies of a kind, too.
func (r *Reconciler) Watch(ctl controller.Controller, c cache.Cache, kind v1alpha1.PolicyKind) error {
	back := handler.EnqueueRequestsFromMapFunc(r.sourceOfDrifted)
	if err := ctl.Watch(source.Kind[client.Object](c, kind.New(), back)); err != nil {
		return fmt.Errorf("watch objects of kind %s: %w", kind.Name, err)
	}
	return nil
}

// requested lets updates pass that ask for a look now (flux reconcile, an annotation set by hand).
type requested struct{ predicate.Funcs }

func (requested) Update(e event.UpdateEvent) bool {
	was, _ := meta.ReconcileAnnotationValue(e.ObjectOld.GetAnnotations())
	is, ok := meta.ReconcileAnnotationValue(e.ObjectNew.GetAnnotations())
	return ok && is != was
}

// sourceOfDrifted names the PolicySource of a policy that is no longer what was applied.
func (r *Reconciler) sourceOfDrifted(ctx context.Context, o client.Object) []reconcile.Request {
	kind, known := v1alpha1.PolicyKindOf(o)
	if !known {
		return nil
	}
	l := o.GetLabels()
	key := client.ObjectKey{Namespace: l[v1alpha1.LabelSourceNamespace], Name: l[v1alpha1.LabelSourceName]}
	if key.Name == "" {
		return nil
	}
	r.mu.Lock()
	var want string
	if mem := r.memory[key]; mem != nil {
		want = mem.prints[refOf(kind.Name, o.GetNamespace(), o.GetName())].print
	}
	r.mu.Unlock()
	if want == "" {
		return nil // never applied by this process: the first look will see to it
	}
	// A deleted object arrives here with its last contents, so ask the cache rather than compare what came.
	live := kind.New()
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(o), live); err == nil {
		if is, err := fingerprint(live); err == nil && is == want {
			return nil
		}
	}
	return []reconcile.Request{{NamespacedName: key}}
}
