// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/test/bufconn"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/operator/controllers"
	"github.com/fairlead-mesh/fairlead/operator/federate"
	"github.com/fairlead-mesh/fairlead/operator/identities"
	"github.com/fairlead-mesh/fairlead/operator/observe"
	"github.com/fairlead-mesh/fairlead/operator/report"
)

// cluster is a member of the mesh: its API, its operator (unless it is stopped) and its nodes.
type cluster struct {
	name     string
	kube     *kube
	operator *operator
	door     relayDoor
}

// operator is one run of a cluster's operator, wired as its main.go does, without the relay's certificates and without
// Git.
type operator struct {
	hub        *relay.Hub
	observer   *observe.Observer
	intake     *federate.Intake
	connection *federate.Connection
	discoverer *federate.Discoverer
	server     *relay.Server

	cancel context.CancelFunc
	parts  sync.WaitGroup
	failed atomic.Pointer[error]
}

const (
	namespace = "fairlead-system"
	version   = "story"
)

func startOperator(c *cluster, log *slog.Logger) *operator {
	log = log.With("operator", c.name)
	kube, caching := c.kube, c.kube.cache()
	o := &operator{hub: relay.NewHub(relay.DefaultHistory)}
	elected := make(chan struct{})
	close(elected)

	o.observer = observe.New(caching, version, log)
	warnings := controllers.NewWarnings(kube, events{log}, log)
	allocator := identities.New(kube, o.observer, log)
	o.intake = federate.NewIntake(o.hub, log)
	decider := federate.NewDecider(caching, o.intake, log)
	o.connection = federate.NewConnection(caching, namespace, elected, o.intake, log)
	o.discoverer = federate.NewDiscoverer(kube, o.intake, events{log}, log)
	o.observer.AddSinks(o.intake, decider, o.connection, allocator, warnings)

	reporter := report.New(kube, log)
	o.server = relay.NewServer(o.hub, relay.ServerConfig{
		// A token is the node's name here: who may have which is the operator's serve package's to test.
		Authenticate: func(_ context.Context, token string) (string, error) { return token, nil },
		Report:       reporter.Report, Logger: log,
	})
	status := controllers.NewStatus(controllers.StatusConfig{
		Client: kube, Cache: caching, Connection: o.connection, Intake: o.intake, Discoverer: o.discoverer, Log: log, Version: version,
	})
	o.intake.OnChange(status.Wake)
	o.observer.AddSinks(status)

	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	for _, part := range []manager.Runnable{o.observer, warnings, allocator, decider, o.connection, o.discoverer, status} {
		o.run(ctx, fmt.Sprintf("%T", part), part.Start)
	}
	o.run(ctx, "relay", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-decider.Ready():
		}
		listener := bufconn.Listen(1 << 20)
		c.door.open(listener)
		defer c.door.open(nil)
		return o.server.Serve(ctx, listener, nil)
	})
	return o
}

func (o *operator) run(ctx context.Context, name string, f func(context.Context) error) {
	o.parts.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%s ended: %w", name, err)
			o.failed.Store(&err)
		}
	})
}

func (c *cluster) start(log *slog.Logger) { c.operator = startOperator(c, log) }

// stop ends the operator as a crash would: nothing is taken back.
func (c *cluster) stop() {
	if c.operator == nil {
		return
	}
	c.operator.cancel()
	c.operator.parts.Wait()
	c.operator = nil
	c.kube.forgetHandlers()
}

// relayDoor is where agents reach their relay. It can be shut while the relay runs on, as a broken network would.
type relayDoor struct {
	mu       sync.Mutex
	listener *bufconn.Listener
	cut      bool
	conns    []net.Conn
}

var errCut = errors.New("the way to the relay is cut")

func (d *relayDoor) open(l *bufconn.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener = l
}

func (d *relayDoor) dial(ctx context.Context, _ string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut || d.listener == nil {
		return nil, errCut
	}
	conn, err := d.listener.DialContext(ctx)
	if err == nil {
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

func (d *relayDoor) setCut(cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = cut
	for _, c := range d.conns {
		if cut {
			_ = c.Close()
		}
	}
	d.conns = nil
}

func (d *relayDoor) isCut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

// events go to the log.
type events struct{ log *slog.Logger }

func (e events) Eventf(_, _ runtime.Object, typ, reason, _, note string, args ...any) {
	e.log.Info("event", "type", typ, "reason", reason, "note", fmt.Sprintf(note, args...))
}

func (e events) AnnotatedEventf(regarding, related runtime.Object, _ map[string]string, typ, reason, action, note string, args ...any) {
	e.Eventf(regarding, related, typ, reason, action, note, args...)
}

// meshNode is what the operator knows of a node from its agent.
func (c *cluster) meshNode(name string) (*v1alpha1.MeshNode, error) {
	n := &v1alpha1.MeshNode{}
	err := c.kube.Get(context.Background(), client.ObjectKey{Name: name}, n)
	return n, err
}
