// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/controllers"
	"github.com/fairlead-mesh/fairlead/operator/federate"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// measureStatus lets the operator's status controller go over 500 policies that 100 nodes report, with an API server that
// costs nothing: lists are handed out as they are, and there is nothing to write after the first pass.
func measureStatus(say func(string, ...any)) (*Status, error) {
	const policies, nodes = 500, 100
	api := newMemoryAPI(policies, nodes)
	s := (&controllers.Status{
		Client: api, Cache: memoryCache{Reader: api}, Connection: connection{}, Intake: intake{}, Discoverer: discoverer{}, Log: slog.New(slog.DiscardHandler), Version: "scale",
	}).Init()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	const warm, counted = 2, 5
	var began time.Duration
	var heap process.Heap
	for pass := range int64(warm + counted) {
		if pass == warm {
			began, heap = selfCPU(), process.HeapOfSelf(false)
		}
		for api.passes.Load() <= pass { // one more begins: the one before is through
			s.Wake()
			time.Sleep(10 * time.Millisecond)
		}
		say("pass %d", pass+1)
	}
	used, allocated := selfCPU()-began, process.HeapOfSelf(false).Allocated-heap.Allocated
	cancel()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("status controller: %w", err)
	}
	return &Status{Load: load(), Policies: policies, Nodes: nodes, CPU: ms(used) / counted, Garbage: int64(allocated) / counted}, nil
}

func selfCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryAPI is what the controller asks of an API server, a cache, and the operator's other parts.
type memoryAPI struct {
	client.Client // what the controller doesn't ask for

	policies []v1alpha1.MeshNetworkPolicy
	nodes    []corev1.Node
	agents   []v1alpha1.MeshNode
	passes   atomic.Int64
}

func newMemoryAPI(policies, nodes int) *memoryAPI {
	a := &memoryAPI{}
	for i := range policies {
		a.policies = append(a.policies, v1alpha1.MeshNetworkPolicy{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprintf("policy-%d", i), Generation: 1,
			Annotations: map[string]string{v1alpha1.AnnotationSourceRevision: "main@sha1:1"},
		}})
	}
	now := metav1.Now()
	for n := range nodes {
		name := fmt.Sprintf("n%d", n)
		a.nodes = append(a.nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		agent := v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.MeshNodeStatus{LastReportTime: &now}}
		for i := range policies {
			agent.Status.Policies = append(agent.Status.Policies, v1alpha1.NodePolicy{
				Key: fmt.Sprintf("home/policies/MeshNetworkPolicy/shop/policy-%d", i), Revision: "main@sha1:1",
			})
		}
		a.agents = append(a.agents, agent)
	}
	return a
}

// Get knows the one ClusterMesh.
func (a *memoryAPI) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	mesh, ok := o.(*v1alpha1.ClusterMesh)
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	*mesh = v1alpha1.ClusterMesh{ObjectMeta: metav1.ObjectMeta{Name: federate.MeshName}, Spec: v1alpha1.ClusterMeshSpec{ClusterName: "home", MeshID: "scale"}}
	return nil
}

// List hands out what there is. A cache would copy each object.
func (a *memoryAPI) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch l := list.(type) {
	case *v1alpha1.MeshNetworkPolicyList:
		l.Items = a.policies
	case *corev1.NodeList:
		l.Items = a.nodes
	case *v1alpha1.MeshNodeList:
		a.passes.Add(1)
		l.Items = a.agents
	}
	return nil
}

// Status takes writes.
func (a *memoryAPI) Status() client.SubResourceWriter { return discard{} }

type discard struct{ client.SubResourceWriter }

func (discard) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return nil
}

// memoryCache reads from the API itself.
type memoryCache struct {
	client.Reader
	cache.Informers // what the controller doesn't ask for
}

// GetInformer is of objects that never change.
func (memoryCache) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return still{}, nil
}

type still struct{ cache.Informer }

func (still) AddEventHandler(toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return nil, nil //nolint:nilnil // nobody asks whether it has synced
}

// The operator's other parts, which have nothing to say.
type (
	connection struct{}
	intake     struct{}
	discoverer struct{}
)

func (connection) Status() federate.Status    { return federate.Status{} }
func (intake) Overview() federate.Overview    { return federate.Overview{} }
func (discoverer) Refused() map[string]string { return nil }
