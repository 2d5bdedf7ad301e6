// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package observe follows this cluster's objects in the Kubernetes API and keeps the records that are made from them
// up to date.
//
//	informers ── handlers.go ──► export.State ── flush at once, then at most every few ms ──► Sinks
//
// Every replica of the operator does this: each serves agents, and any may become the one that publishes.
package observe

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// gather is how long changes are gathered after a flush. The first change after a quiet moment is not held back.
const gather = 5 * time.Millisecond

// Sink takes what changed, with the membership it was made under (nil: none).
type Sink interface {
	// Changed is called from one goroutine, when a record or the membership changed. The first call holds everything.
	Changed(mesh *v1alpha1.ClusterMeshSpec, d export.Delta)
}

// Observer keeps an export.State in step with the API server.
type Observer struct {
	cache ctrlcache.Cache
	log   *slog.Logger
	sinks []Sink

	live  client.Reader // nil: optional kinds are not looked for
	found []func(v1alpha1.PolicyKind) error
	// requested says that kinds are read that are read on request only.
	requested bool

	mu     sync.Mutex
	state  *export.State
	mesh   *v1alpha1.ClusterMeshSpec
	kinds  []v1alpha1.PolicyKind // that are watched
	synced bool
	wake   wakeup.Signal

	// Of the loop's goroutine: what the sinks were given last.
	flushed bool
	under   *v1alpha1.ClusterMeshSpec
}

// New makes an Observer.
func New(c ctrlcache.Cache, version string, log *slog.Logger) *Observer {
	return &Observer{cache: c, log: log, state: export.NewState(version), wake: wakeup.New()}
}

// AddSinks adds sinks, which get each change in their order. Call it before Start.
func (o *Observer) AddSinks(sinks ...Sink) { o.sinks = append(o.sinks, sinks...) }

// NeedLeaderElection says that every replica observes.
func (o *Observer) NeedLeaderElection() bool { return false }

// Start runs until ctx ends.
func (o *Observer) Start(ctx context.Context) error {
	missing, err := o.addInstalled(ctx)
	if err != nil {
		return err
	}
	var ready []cache.InformerSynced
	for _, f := range o.feeds() {
		synced, err := o.watch(ctx, f)
		if err != nil {
			return err
		}
		ready = append(ready, synced)
	}
	owners, missingOwners := o.followOwners(ctx, ownerKinds)
	if !cache.WaitForCacheSync(ctx.Done(), ready...) {
		return ctx.Err()
	}
	o.awaitOwners(ctx, owners)
	o.mu.Lock()
	o.synced = true
	joined := o.mesh != nil
	o.mu.Unlock()
	o.log.Info("this cluster's objects are known", "joined", joined)
	if !joined {
		o.log.Warn("there is no ClusterMesh named \"mesh\": this cluster belongs to no mesh yet, so there is nothing to serve; waiting for one")
	}
	o.wake.Raise()
	var g errgroup.Group
	g.Go(func() error { o.addLater(ctx, missing); return nil })
	g.Go(func() error { o.tend(ctx, missingOwners); return nil })
	o.flushLoop(ctx)
	return g.Wait()
}

func (o *Observer) watch(ctx context.Context, f feed) (cache.InformerSynced, error) {
	informer, err := o.cache.GetInformer(ctx, f.object)
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", f.object, err)
	}
	reg, err := informer.AddEventHandler(f.handler)
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", f.object, err)
	}
	return reg.HasSynced, nil
}

func (o *Observer) flushLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		o.flush()
		select {
		case <-ctx.Done():
			return
		case <-time.After(gather):
		}
	}
}

func (o *Observer) flush() {
	o.mu.Lock()
	d, mesh := o.state.Flush(), o.mesh
	o.mu.Unlock()
	// Most changes of objects change no record: agents write a report a minute, kubelets a heartbeat.
	if o.flushed && o.under == mesh && d.Empty() {
		return
	}
	o.flushed, o.under = true, mesh
	for _, s := range o.sinks {
		s.Changed(mesh, d)
	}
}

// change applies one change to the state and sees to it that it is flushed.
func (o *Observer) change(f func(*export.State)) {
	o.mu.Lock()
	f(o.state)
	synced := o.synced
	o.mu.Unlock()
	if synced {
		o.wake.Raise()
	}
}

// Synced says whether every object was seen once, so that what is missing is gone.
func (o *Observer) Synced() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.synced
}

// Unnumbered lists label sets of pods that wait for an identity.
func (o *Observer) Unnumbered() []map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Unnumbered()
}

// Identities gives every identity known.
func (o *Observer) Identities() map[uint32]map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Identities()
}

// InUse says whether a pod has this identity.
func (o *Observer) InUse(number uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.InUse(number)
}

// Learn takes a new identity without waiting for the watch to bring it.
func (o *Observer) Learn(number uint32, labels map[string]string) {
	o.change(func(s *export.State) { s.SetIdentity(number, labels) })
}
