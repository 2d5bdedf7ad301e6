// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/condition"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

const (
	pause = 300 * time.Millisecond
	// again is how often everything is looked at without a cause, for what changes with time alone.
	again = 15 * time.Second
)

// Facts are what statuses are made from.
type Facts struct {
	Now       time.Time
	Version   string
	Mesh      *v1alpha1.ClusterMesh
	Store     federate.Status
	Federated federate.Overview
	Refused   map[string]string
	Clusters  []v1alpha1.MeshCluster
	Nodes     []string
	Agents    map[string]*v1alpha1.MeshNode // by node
}

// Status writes statuses on the leader.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=clustermeshes/status;meshclusters/status;meshnetworkpolicies/status;clustermeshnetworkpolicies/status;policysources/status,verbs=get;patch;update
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch;update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch;update
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;list;watch;create;update;patch,namespace=fairlead-system
type Status struct {
	Client     client.Client
	Cache      cache.Cache
	Connection interface{ Status() federate.Status }
	Intake     interface{ Overview() federate.Overview }
	Discoverer interface{ Refused() map[string]string }
	Events     recorder.EventRecorder // nil: nobody is told
	Log        *slog.Logger
	Version    string // of this operator

	wake chan struct{}
}

// Init prepares for Wake; call it before anything else.
func (s *Status) Init() *Status {
	s.wake = make(chan struct{}, 1)
	return s
}

// Wake says that something may have changed.
func (s *Status) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// NeedLeaderElection says that only the leader writes.
func (s *Status) NeedLeaderElection() bool { return true }

// Start runs until ctx ends.
func (s *Status) Start(ctx context.Context) error {
	for _, o := range []client.Object{
		&v1alpha1.ClusterMesh{}, &v1alpha1.MeshCluster{}, &v1alpha1.MeshNode{}, &corev1.Node{}, &v1alpha1.PolicySource{},
		&v1alpha1.MeshNetworkPolicy{}, &v1alpha1.ClusterMeshNetworkPolicy{},
	} {
		if err := s.watch(ctx, o); err != nil {
			return err
		}
	}
	s.Wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-time.After(again):
		}
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("write statuses", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (s *Status) watch(ctx context.Context, o client.Object) error {
	informer, err := s.Cache.GetInformer(ctx, o)
	if err != nil {
		return fmt.Errorf("watch %T: %w", o, err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.Wake() }, UpdateFunc: func(_, _ any) { s.Wake() }, DeleteFunc: func(any) { s.Wake() },
	})
	if err != nil {
		return fmt.Errorf("watch %T: %w", o, err)
	}
	return nil
}

// write brings every status up to date. One object that can't be written doesn't hold up the others.
func (s *Status) write(ctx context.Context) error {
	f, err := s.gather(ctx)
	if err != nil {
		return err
	}
	var errs []error
	ready := 0
	for i := range f.Clusters {
		mc := &f.Clusters[i]
		before := mc.DeepCopy()
		setClusterStatus(mc, f)
		if condition.IsTrue(mc.Status.Conditions, condition.Ready) {
			ready++
		}
		errs = append(errs, s.patch(ctx, before, mc))
		s.tellRefusals(before, mc)
	}
	if f.Mesh != nil {
		before := f.Mesh.DeepCopy()
		setMeshStatus(f.Mesh, f, ready)
		errs = append(errs, s.patch(ctx, before, f.Mesh))
	}
	errs = append(errs, s.writePolicies(ctx, f), s.writeSources(ctx, f))
	return errors.Join(errs...)
}

// tellRefusals sends an event when another record of a cluster was refused.
func (s *Status) tellRefusals(before, mc *v1alpha1.MeshCluster) {
	if s.Events == nil || len(mc.Status.Rejections) == 0 {
		return
	}
	newest := mc.Status.Rejections[0]
	if len(before.Status.Rejections) > 0 && before.Status.Rejections[0] == newest {
		return
	}
	s.Events.Eventf(mc, nil, corev1.EventTypeWarning, "RecordRefused", "Validate", "%s: %s (%d refused)", newest.Key, newest.Reason, mc.Status.RejectedRecords)
}

func (s *Status) patch(ctx context.Context, before, after client.Object) error {
	_, err := condition.Patch(ctx, s.Client, before, after)
	return client.IgnoreNotFound(err)
}

func (s *Status) gather(ctx context.Context) (*Facts, error) {
	f := &Facts{
		Now: time.Now(), Version: s.Version, Store: s.Connection.Status(), Federated: s.Intake.Overview(), Refused: s.Discoverer.Refused(),
		Agents: map[string]*v1alpha1.MeshNode{},
	}
	mesh := &v1alpha1.ClusterMesh{}
	if err := s.Client.Get(ctx, client.ObjectKey{Name: federate.MeshName}, mesh); err == nil {
		f.Mesh = mesh
	} else if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the ClusterMesh: %w", err)
	}
	var clusters v1alpha1.MeshClusterList
	if err := s.Client.List(ctx, &clusters); err != nil {
		return nil, fmt.Errorf("list MeshClusters: %w", err)
	}
	f.Clusters = clusters.Items
	var nodes corev1.NodeList
	if err := s.Client.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list Nodes: %w", err)
	}
	for _, n := range nodes.Items {
		f.Nodes = append(f.Nodes, n.Name)
	}
	var agents v1alpha1.MeshNodeList
	if err := s.Client.List(ctx, &agents); err != nil {
		return nil, fmt.Errorf("list MeshNodes: %w", err)
	}
	for i := range agents.Items {
		f.Agents[agents.Items[i].Name] = &agents.Items[i]
	}
	return f, nil
}
