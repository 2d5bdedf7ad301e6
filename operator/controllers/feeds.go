// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/aggregate"
)

// feed is a kind of object, and what one that is there or (gone) not any more means.
type feed struct {
	object client.Object
	take   func(o client.Object, gone bool)
}

func (s *Status) feeds() []feed {
	wake := func(client.Object, bool) { s.wake.Raise() }
	feeds := []feed{
		{&v1alpha1.ClusterMesh{}, wake},
		{&v1alpha1.MeshCluster{}, wake},
		{&corev1.Node{}, func(o client.Object, gone bool) {
			// Kubelets change their Nodes often, and nothing of it matters here.
			if s.ledger.setNode(o.GetName(), !gone) {
				s.wake.Raise()
			}
		}},
		{&v1alpha1.MeshNode{}, func(o client.Object, gone bool) {
			agent, ok := o.(*v1alpha1.MeshNode)
			if !ok || gone {
				agent = nil
			}
			s.ledger.setAgent(o.GetName(), agent)
			s.wake.Raise()
		}},
		{&v1alpha1.PolicySource{}, func(o client.Object, gone bool) {
			src, ok := o.(*v1alpha1.PolicySource)
			if !ok || gone {
				src = nil
			}
			s.ledger.setSource(aggregate.SourceName{Namespace: o.GetNamespace(), Name: o.GetName()}, src)
			s.wake.Raise()
		}},
	}
	for _, kind := range v1alpha1.PolicyKinds() {
		if kind.Status == nil {
			continue
		}
		feeds = append(feeds, feed{kind.New(), func(o client.Object, gone bool) {
			if !gone {
				s.ledger.touchPolicy(policyRef{kind.Name, o.GetNamespace(), o.GetName()})
				s.wake.Raise()
			}
		}})
	}
	return feeds
}

// watch feeds the ledger, and returns when it knows every object: sums over half of the nodes must not be shown.
func (s *Status) watch(ctx context.Context) error {
	var ready []toolscache.InformerSynced
	for _, f := range s.feeds() {
		informer, err := s.cfg.Cache.GetInformer(ctx, f.object)
		if err != nil {
			return fmt.Errorf("watch %T: %w", f.object, err)
		}
		reg, err := informer.AddEventHandler(f.handler())
		if err != nil {
			return fmt.Errorf("watch %T: %w", f.object, err)
		}
		ready = append(ready, reg.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), ready...) {
		return ctx.Err()
	}
	return nil
}

func (f feed) handler() toolscache.ResourceEventHandler {
	take := func(obj any, gone bool) {
		if o, ok := obj.(client.Object); ok {
			f.take(o, gone)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { take(obj, false) },
		UpdateFunc: func(_, obj any) { take(obj, false) },
		DeleteFunc: func(obj any) {
			if d, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			take(obj, true)
		},
	}
}
