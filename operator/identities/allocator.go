// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package identities gives label sets of pods their numbers, as MeshIdentity objects, and takes numbers back that no pod
// has had for a while. The leader does it; every replica and, through the relay, every agent reads the result.
package identities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

const (
	// KeepUnused is how long a number outlives the last pod that had it: a restarted Deployment gets its number back,
	// and no agent has to compile its policies anew.
	KeepUnused = 10 * time.Minute

	collectEvery = time.Minute
	retryAfter   = time.Second
	parallel     = 8
)

// Source knows which label sets pods have.
type Source interface {
	Unnumbered() []map[string]string
	Identities() map[uint32]map[string]string
	InUse(number uint32) bool
	Learn(number uint32, labels map[string]string)
}

// Allocator runs on the leader.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshidentities,verbs=get;list;watch;create;delete
type Allocator struct {
	client client.Client
	source Source
	log    *slog.Logger
	now    func() time.Time

	under       *v1alpha1.ClusterMeshSpec      // of Changed's caller: the membership last seen
	mesh        chan *v1alpha1.ClusterMeshSpec // newest membership
	wake        wakeup.Signal
	unusedSince map[uint32]time.Time
}

// New makes an Allocator.
func New(c client.Client, source Source, log *slog.Logger) *Allocator {
	return &Allocator{
		client: c, source: source, log: log, now: time.Now,
		mesh: make(chan *v1alpha1.ClusterMeshSpec, 1), wake: wakeup.New(), unusedSince: map[uint32]time.Time{},
	}
}

// NeedLeaderElection says that only the leader allocates.
func (a *Allocator) NeedLeaderElection() bool { return true }

// Changed wakes the Allocator when something needs a number: finding out what does costs a look at every label set.
func (a *Allocator) Changed(mesh *v1alpha1.ClusterMeshSpec, d export.Delta) {
	joined := a.under != mesh
	if joined {
		a.under = mesh
		select {
		case <-a.mesh:
		default:
		}
		a.mesh <- mesh
	}
	if joined || d.Unnumbered {
		a.wake.Raise()
	}
}

// Start runs until ctx ends.
func (a *Allocator) Start(ctx context.Context) error {
	var mesh *v1alpha1.ClusterMeshSpec
	collect := time.NewTicker(collectEvery)
	defer collect.Stop()
	retry := make(<-chan time.Time)
	for {
		select {
		case <-ctx.Done():
			return nil
		case mesh = <-a.mesh:
			continue
		case <-collect.C:
			a.Collect(ctx, mesh)
			continue
		case <-a.wake:
		case <-retry:
		}
		select {
		case mesh = <-a.mesh:
		default:
		}
		if mesh == nil {
			continue
		}
		if err := a.Allocate(ctx, uint8(mesh.ClusterID)); err != nil {
			a.log.Error("give pods their identities", "error", err)
			retry = time.After(retryAfter)
		}
	}
}

// Allocate gives every label set without a number one.
func (a *Allocator) Allocate(ctx context.Context, clusterID uint8) error {
	want := a.source.Unnumbered()
	if len(want) == 0 {
		return nil
	}
	allocations, err := identity.Allocate(clusterID, a.source.Identities(), want)
	var exhausted *identity.ExhaustedError
	if err != nil && !errors.As(err, &exhausted) {
		return fmt.Errorf("allocate identities: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	done := map[uint32]bool{}
	for _, al := range allocations {
		if al.ID == identity.Unknown || !al.New || done[al.ID] {
			continue
		}
		done[al.ID] = true
		g.Go(func() error { return a.create(gctx, al) })
	}
	return errors.Join(g.Wait(), err)
}

func (a *Allocator) create(ctx context.Context, al identity.Allocation) error {
	mi := &v1alpha1.MeshIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: strconv.FormatUint(uint64(al.ID), 10)},
		Spec:       v1alpha1.MeshIdentitySpec{Labels: al.Labels},
	}
	err := a.client.Create(ctx, mi)
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("identity %d was taken in the meantime", al.ID)
	}
	if err != nil {
		return fmt.Errorf("create MeshIdentity %s: %w", mi.Name, err)
	}
	a.source.Learn(al.ID, al.Labels)
	return nil
}

// Collect deletes identities that no pod has had for KeepUnused.
func (a *Allocator) Collect(ctx context.Context, mesh *v1alpha1.ClusterMeshSpec) {
	if mesh == nil {
		return
	}
	known := a.source.Identities()
	for n := range a.unusedSince {
		if _, still := known[n]; !still {
			delete(a.unusedSince, n)
		}
	}
	for n := range known {
		if a.source.InUse(n) {
			delete(a.unusedSince, n)
			continue
		}
		since, noted := a.unusedSince[n]
		if !noted {
			a.unusedSince[n] = a.now()
			continue
		}
		if a.now().Sub(since) < KeepUnused {
			continue
		}
		mi := &v1alpha1.MeshIdentity{ObjectMeta: metav1.ObjectMeta{Name: strconv.FormatUint(uint64(n), 10)}}
		if err := a.client.Delete(ctx, mi); client.IgnoreNotFound(err) != nil {
			a.log.Error("delete unused identity", "identity", n, "error", err)
			continue
		}
		delete(a.unusedSince, n)
		a.log.Info("unused identity deleted", "identity", n)
	}
}
