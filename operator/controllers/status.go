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
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/operator/condition"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

const (
	pause = 300 * time.Millisecond
	// again is how often the statuses that change with time alone are looked at without a cause: agents fall silent,
	// heartbeats grow old.
	again = 15 * time.Second
)

// StatusConfig is what a Status looks at and writes to.
type StatusConfig struct {
	Client     client.Client
	Cache      cache.Cache
	Connection interface{ Status() federate.Status }
	Intake     interface{ Overview() federate.Overview }
	Discoverer interface{ Refused() map[string]string }
	Events     recorder.EventRecorder // nil: none are sent
	Log        *slog.Logger
	Version    string // of this operator
}

// Status writes statuses on the leader. It is an observe.Sink too: a policy is in force where agents report the version
// that they were given.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=clustermeshes/status;meshclusters/status;meshnetworkpolicies/status;clustermeshnetworkpolicies/status;policysources/status,verbs=get;patch;update
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies/status,verbs=get;patch;update
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch;update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch;update
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;list;watch;create;update;patch,namespace=fairlead-system
type Status struct {
	cfg    StatusConfig
	client client.Client
	log    *slog.Logger
	now    func() time.Time
	wake   wakeup.Signal
	ledger *ledger
}

// NewStatus makes a Status.
func NewStatus(cfg StatusConfig) *Status {
	return &Status{cfg: cfg, client: cfg.Client, log: cfg.Log, now: time.Now, wake: wakeup.New(), ledger: newLedger()}
}

// Wake says that something may have changed that Connection, Intake or Discoverer say.
func (s *Status) Wake() { s.wake.Raise() }

// Changed takes the policies that agents are given.
func (s *Status) Changed(mesh *v1alpha1.ClusterMeshSpec, d export.Delta) {
	if mesh != nil && s.ledger.export(mesh.ClusterName, d.Local) {
		s.wake.Raise()
	}
}

// NeedLeaderElection says that only the leader writes.
func (s *Status) NeedLeaderElection() bool { return true }

// Start runs until ctx ends.
func (s *Status) Start(ctx context.Context) error {
	if err := s.watch(ctx); err != nil {
		return err
	}
	s.wake.Raise()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-time.After(again):
		}
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("write statuses", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// write brings statuses up to date: those of the clusters whatever happened, for they are few and change with time, and
// of policies those that are due. One object that can't be written doesn't hold up the others.
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
		s.sendRefusals(before, mc)
	}
	if f.Mesh == nil {
		return errors.Join(errs...)
	}
	before := f.Mesh.DeepCopy()
	setMeshStatus(f.Mesh, f, ready)
	errs = append(errs, s.patch(ctx, before, f.Mesh))

	more, err := s.writePolicies(ctx)
	if more {
		s.wake.Raise()
	}
	return errors.Join(append(errs, err)...)
}

// sendRefusals sends an event when another record of a cluster was refused.
func (s *Status) sendRefusals(before, mc *v1alpha1.MeshCluster) {
	if s.cfg.Events == nil || len(mc.Status.Rejections) == 0 {
		return
	}
	newest := mc.Status.Rejections[0]
	if len(before.Status.Rejections) > 0 && before.Status.Rejections[0] == newest {
		return
	}
	s.cfg.Events.Eventf(mc, nil, corev1.EventTypeWarning, "RecordRefused", "Validate", "%s: %s (%d refused)", newest.Key, newest.Reason, mc.Status.RejectedRecords)
}

func (s *Status) patch(ctx context.Context, before, after client.Object) error {
	if _, err := condition.Patch(ctx, s.client, before, after); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("%T: %w", after, err)
	}
	return nil
}
