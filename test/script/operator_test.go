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

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/assembly"
)

// cluster is a member of the mesh: its API, its operator (unless it is stopped) and its nodes.
type cluster struct {
	name     string
	kube     *kube
	operator *operator
	network  relayNetwork
	looks    int // that the story asked policy sources for
}

// operator is one run of a cluster's operator: the binary's parts, with a listener in memory for the relay.
type operator struct {
	*assembly.Operator

	cancel context.CancelFunc
	parts  sync.WaitGroup
	failed atomic.Pointer[error]
}

const (
	namespace = "fairlead-system"
	version   = "story"
)

func startOperator(c *cluster, log *slog.Logger) (*operator, error) {
	log = log.With("operator", c.name)
	elected := make(chan struct{})
	close(elected)
	assembled, err := assembly.New(assembly.Config{
		Version: version, Namespace: namespace, Log: log,
		Client: c.kube, Live: c.kube, Cache: c.kube.cache(), Events: events{log}, Elected: elected,
		// A token is the node's name here: who may have which is the operator's serve package's to test.
		Authenticate:   func(_ context.Context, token string) (string, error) { return token, nil },
		CiliumPolicies: true,
	})
	if err != nil {
		return nil, err
	}
	o := &operator{Operator: assembled}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	for _, part := range o.Parts() {
		o.run(ctx, fmt.Sprintf("%T", part), part.Start)
	}
	o.run(ctx, "relay", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-o.Ready():
		}
		listener := bufconn.Listen(1 << 20)
		c.network.open(listener)
		defer c.network.open(nil)
		return o.Server.Serve(ctx, listener, nil)
	})
	return o, nil
}

func (o *operator) run(ctx context.Context, name string, f func(context.Context) error) {
	o.parts.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%s ended: %w", name, err)
			o.failed.Store(&err)
		}
	})
}

func (c *cluster) start(log *slog.Logger) error {
	o, err := startOperator(c, log)
	c.operator = o
	return err
}

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

// relayNetwork is between agents and their relay. It can be cut while the relay runs on, as a broken network would.
type relayNetwork struct {
	mu       sync.Mutex
	listener *bufconn.Listener
	cut      bool
	conns    []net.Conn
}

var errCut = errors.New("the way to the relay is cut")

func (d *relayNetwork) open(l *bufconn.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener = l
}

func (d *relayNetwork) dial(ctx context.Context, _ string) (net.Conn, error) {
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

func (d *relayNetwork) setCut(cut bool) {
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

func (d *relayNetwork) isCut() bool {
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
