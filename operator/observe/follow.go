// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

const (
	// tendEvery is how often a kind of owner is looked for that this cluster doesn't have, and half of how long a claim may stay
	// unconfirmed before somebody is told.
	tendEvery = time.Minute
	// ownersWait is how long the first records wait for owners that aren't ours, so that a restart doesn't take the provenance
	// from policies for a moment. A kind that may not be read must not hold up everything else.
	ownersWait = 5 * time.Second
)

// followOwners follows the kinds of owners that this cluster has. They are watched and not asked for one by one: what policies
// claim, however many there are and whatever they say, costs no request.
func (o *Observer) followOwners(ctx context.Context, kinds []ownerKind) (ready []cache.InformerSynced, missing []ownerKind) {
	for _, kind := range kinds {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(kind.gvk)
		informer, err := o.cache.GetInformer(ctx, u, ctrlcache.BlockUntilSynced(false))
		if err == nil {
			var reg cache.ResourceEventHandlerRegistration
			if reg, err = informer.AddEventHandler(o.ownerHandler(kind)); err == nil {
				ready = append(ready, reg.HasSynced)
				continue
			}
		}
		o.log.Debug("policies of this kind of owner count as applied by hand", "kind", kind.gvk.GroupKind(), "error", err)
		missing = append(missing, kind)
	}
	return ready, missing
}

func (o *Observer) ownerHandler(kind ownerKind) cache.ResourceEventHandler {
	set := func(s *export.State, u *unstructured.Unstructured, owner *export.Owner) {
		s.SetOwner(export.OwnerName{Kind: kind.gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}, owner)
	}
	return on(o,
		func(s *export.State, u *unstructured.Unstructured) { set(s, u, kind.read(u)) },
		func(s *export.State, u *unstructured.Unstructured) { set(s, u, nil) })
}

// sourceHandler follows PolicySources.
func (o *Observer) sourceHandler() cache.ResourceEventHandler {
	set := func(s *export.State, src *v1alpha1.PolicySource, owner *export.Owner) {
		s.SetOwner(export.OwnerName{Kind: export.OwnerPolicySource, Namespace: src.Namespace, Name: src.Name}, owner)
	}
	h := on(o,
		func(s *export.State, src *v1alpha1.PolicySource) { set(s, src, policySource(src)) },
		func(s *export.State, src *v1alpha1.PolicySource) { set(s, src, nil) })
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { h.OnAdd(obj, false) },
		UpdateFunc: func(was, is any) {
			a, ok := was.(*v1alpha1.PolicySource)
			b, too := is.(*v1alpha1.PolicySource)
			if !ok || !too || !sameInventory(a, b) {
				h.OnUpdate(was, is)
			}
		},
		DeleteFunc: h.OnDelete,
	}
}

// awaitOwners waits for owners to be known, but not for long.
func (o *Observer) awaitOwners(ctx context.Context, ready []cache.InformerSynced) {
	ctx, cancel := context.WithTimeout(ctx, ownersWait)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), ready...) {
		o.log.Warn("not every owner of policies is known yet; what they applied counts as applied by hand until then")
	}
}

// tend looks for kinds of owners that came later, and has owners of policies told of claims that nobody confirmed.
func (o *Observer) tend(ctx context.Context, missing []ownerKind) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, missing = o.followOwners(ctx, missing)
			o.change(func(s *export.State) { s.AgeClaims() })
		}
	}
}
