// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// Decider turns the MeshCluster objects into decisions for the Intake, in every replica.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshclusters,verbs=get;list;watch
type Decider struct {
	Cache  cache.Cache
	Intake *Intake
	Log    *slog.Logger

	mu     sync.Mutex
	mesh   *v1alpha1.ClusterMeshSpec
	wake   wakeup.Signal
	first  chan struct{}
	closed bool
}

// NewDecider makes a Decider.
func NewDecider(c cache.Cache, intake *Intake, log *slog.Logger) *Decider {
	return &Decider{Cache: c, Intake: intake, Log: log, wake: wakeup.New(), first: make(chan struct{})}
}

// Ready is closed once this cluster's membership is known and every MeshCluster was judged: only then does the relay
// know which clusters there are.
func (d *Decider) Ready() <-chan struct{} { return d.first }

// NeedLeaderElection says that every replica decides.
func (d *Decider) NeedLeaderElection() bool { return false }

// Changed takes this cluster's membership.
func (d *Decider) Changed(mesh *v1alpha1.ClusterMeshSpec, _ export.Delta) {
	d.mu.Lock()
	same := d.mesh == mesh
	d.mesh = mesh
	d.mu.Unlock()
	if !same {
		d.nudge()
	}
}

func (d *Decider) nudge() {
	d.wake.Raise()
}

// Start runs until ctx ends.
func (d *Decider) Start(ctx context.Context) error {
	informer, err := d.Cache.GetInformer(ctx, &v1alpha1.MeshCluster{})
	if err != nil {
		return fmt.Errorf("watch MeshClusters: %w", err)
	}
	reg, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { d.nudge() },
		UpdateFunc: func(_, _ any) { d.nudge() },
		DeleteFunc: func(any) { d.nudge() },
	})
	if err != nil {
		return fmt.Errorf("watch MeshClusters: %w", err)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		return ctx.Err()
	}
	d.nudge()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			d.decide(ctx)
		}
	}
}

func (d *Decider) decide(ctx context.Context) {
	d.mu.Lock()
	mesh := d.mesh
	d.mu.Unlock()
	if mesh == nil {
		return
	}
	var list v1alpha1.MeshClusterList
	if err := d.Cache.List(ctx, &list); err != nil {
		d.Log.Error("list MeshClusters", "error", err)
		return
	}
	d.Intake.SetDecisions(Decide(mesh, list.Items))
	if !d.closed {
		d.closed = true
		close(d.first)
	}
}
