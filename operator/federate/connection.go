// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
)

// errIdentityChanged ends the process: with another name or number nothing that was learned holds, and a fresh start is
// the one path that is well trodden.
var errIdentityChanged = errors.New("this cluster's name, number or mesh changed: starting anew")

// Connection keeps the exchange with the shared etcd going, over changes of endpoints and credentials. Every replica
// watches; the leader publishes.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=clustermeshes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch,namespace=fairlead-system
type Connection struct {
	cache     cache.Cache
	namespace string
	elected   <-chan struct{}
	intake    *Intake
	watcher   *store.Watcher
	log       *slog.Logger
	wake      wakeup.Signal

	mu        sync.Mutex
	mesh      *v1alpha1.ClusterMeshSpec
	desired   record.Set
	publisher *store.Publisher
	status    Status
	restart   error
}

// Status says how the exchange with the store goes.
type Status struct {
	// Err says why there is no connection: settings that can't be used, or a *store.OpenError. Nil: there is one.
	Err      error
	Isolated bool
	Publish  store.PublishStatus
	Watch    store.WatchStatus
}

// NewConnection makes a Connection. elected is closed when this process is the leader.
func NewConnection(c cache.Cache, namespace string, elected <-chan struct{}, intake *Intake, log *slog.Logger) *Connection {
	conn := &Connection{
		cache: c, namespace: namespace, elected: elected, intake: intake, log: log,
		watcher: store.NewWatcher(intake, log), wake: wakeup.New(),
		desired: record.Set{}, status: Status{Err: errNoMesh},
	}
	intake.forget = conn.watcher.Forget
	return conn
}

// NeedLeaderElection says that every replica connects.
func (c *Connection) NeedLeaderElection() bool { return false }

// Changed takes what this cluster publishes.
func (c *Connection) Changed(mesh *v1alpha1.ClusterMeshSpec, d export.Delta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mesh == nil {
		return
	}
	if was := c.mesh; was != nil && (was.ClusterName != mesh.ClusterName || was.ClusterID != mesh.ClusterID || was.MeshID != mesh.MeshID) {
		c.restart = errIdentityChanged
	}
	c.desired.Apply(d.Published)
	if c.publisher == nil {
		c.publisher = store.NewPublisher(mesh.ClusterName, c.log)
		c.publisher.SetDesired(cloneSet(c.desired))
	} else if !d.Published.Empty() {
		c.publisher.Apply(d.Published)
	}
	if c.mesh != mesh {
		c.nudge()
	}
	c.mesh = mesh
}

func cloneSet(s record.Set) record.Set {
	out := make(record.Set, len(s))
	for k, v := range s {
		out[k] = v
	}
	return out
}

func (c *Connection) nudge() {
	c.wake.Raise()
}

// Status says how things are now.
func (c *Connection) Status() Status {
	c.mu.Lock()
	s, p := c.status, c.publisher
	c.mu.Unlock()
	s.Watch = c.watcher.Status()
	if p != nil {
		s.Publish = p.Status()
	}
	return s
}

func (c *Connection) setErr(err error) {
	c.mu.Lock()
	was := c.status.Err
	c.status.Err = err
	c.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		c.log.Warn("no connection to the shared etcd", "why", err)
	}
	c.intake.changed()
}

// Start runs until ctx ends, or with an error if the process should end.
func (c *Connection) Start(ctx context.Context) error {
	if err := c.watchObjects(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		// Not before it is known who we are: the watch brings our own records too.
		c.mu.Lock()
		known := c.mesh != nil
		c.mu.Unlock()
		set, err := readSettings(ctx, c.cache, c.namespace)
		if err == nil && !known {
			c.wait(ctx, time.Second)
			continue
		}
		if err != nil {
			c.setErr(err)
			c.wait(ctx, time.Minute)
			continue
		}
		if err := c.session(ctx, set); err != nil {
			return err
		}
	}
	return nil
}

// watchObjects wakes the loop when the ClusterMesh or a Secret of the operator's namespace changes.
func (c *Connection) watchObjects(ctx context.Context) error {
	wake := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.nudge() }, UpdateFunc: func(_, _ any) { c.nudge() }, DeleteFunc: func(any) { c.nudge() },
	}
	mesh, err := c.cache.GetInformer(ctx, &v1alpha1.ClusterMesh{})
	if err != nil {
		return fmt.Errorf("watch ClusterMeshes: %w", err)
	}
	secrets, err := c.cache.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secrets: %w", err)
	}
	for _, informer := range []cache.Informer{mesh, secrets} {
		if _, err := informer.AddEventHandler(wake); err != nil {
			return fmt.Errorf("watch the connection's settings: %w", err)
		}
	}
	return nil
}

func (c *Connection) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-c.wake:
	case <-time.After(d):
	}
}

// session holds one connection, until its settings change.
func (c *Connection) session(ctx context.Context, set *settings) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, sctx := errgroup.WithContext(sctx)
	g.Go(func() error { return c.endOnChange(sctx, set) })
	g.Go(func() error { return c.connected(sctx, set) })
	err := g.Wait()
	if errors.Is(err, errSettingsChanged) {
		c.log.Info("settings of the shared etcd changed; connecting anew")
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

var errSettingsChanged = errors.New("settings changed")

func (c *Connection) endOnChange(ctx context.Context, set *settings) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		}
		c.mu.Lock()
		restart := c.restart
		c.mu.Unlock()
		if restart != nil {
			return restart
		}
		if now, err := readSettings(ctx, c.cache, c.namespace); err != nil || !set.same(now) {
			return errSettingsChanged
		}
	}
}

func (c *Connection) connected(ctx context.Context, set *settings) error {
	st, err := c.open(ctx, set)
	if err != nil {
		return err
	}
	defer st.Close()
	c.mu.Lock()
	c.status.Isolated = st.Isolated()
	c.mu.Unlock()
	c.setErr(nil)
	c.log.Info("connected to the shared etcd", "endpoints", set.endpoints, "isolated", st.Isolated())

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.watcher.Run(ctx, st) })
	g.Go(func() error { return c.publish(ctx, st) })
	return g.Wait()
}

func (c *Connection) open(ctx context.Context, set *settings) (*store.Store, error) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		st, err := store.Open(ctx, store.Config{Endpoints: set.endpoints, TLS: set.tls, Cluster: set.cluster, Logger: c.log})
		if err == nil {
			return st, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.setErr(err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retry):
		}
	}
}

// publish waits to be the leader, to have seen the store, and for nobody else to be using this cluster's name.
func (c *Connection) publish(ctx context.Context, st *store.Store) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.elected:
	}
	for {
		if err := c.nameIsFree(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		p := c.publisher
		c.mu.Unlock()
		if p != nil {
			return p.Run(ctx, st)
		}
	}
}

func (c *Connection) nameIsFree(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		o := c.intake.Overview()
		if c.watcher.Status().Revision > 0 && (o.Impostor == "" || o.Own.Stale) {
			return nil
		}
	}
}
