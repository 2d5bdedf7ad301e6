// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually waits for a condition. The bound only ends a test that would never pass.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func put(cluster, name string, version int) *relayv1.Change {
	rec := &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
		Namespace: "default", Name: name, Addresses: []string{"10.1.0.1"}, Identity: 1<<16 | 256, Node: fmt.Sprintf("node-%d", version),
	}}}
	key, err := record.Key(rec)
	if err != nil {
		panic(err)
	}
	return &relayv1.Change{Key: key, Record: rec}
}

func gone(cluster, name string) *relayv1.Change {
	return &relayv1.Change{Key: put(cluster, name, 0).GetKey()}
}

func synced(names ...string) []*relayv1.ClusterState {
	var out []*relayv1.ClusterState
	for _, n := range names {
		out = append(out, &relayv1.ClusterState{Name: n, Synced: true})
	}
	return out
}

func apply(t testing.TB, h *Hub, changes ...*relayv1.Change) {
	t.Helper()
	if err := h.Apply(changes); err != nil {
		t.Fatal(err)
	}
}

// contents decodes what a hub holds.
func contents(t testing.TB, h *Hub) map[string]*recordv1.Record {
	t.Helper()
	s := newMirror()
	for _, b := range rest(t, h, &cursor{}) {
		s.Apply(b)
	}
	return maps.Collect(s.All())
}

// rest gives all batches that a stream is still to send.
func rest(t testing.TB, h *Hub, c *cursor) []*relayv1.Batch {
	t.Helper()
	var out []*relayv1.Batch
	for {
		b, more := one(t, h, c)
		out = append(out, b)
		if !more {
			return out
		}
	}
}

// one gives the next batch of a stream, and whether there are more. A snapshot begins if it must.
func one(t testing.TB, h *Hub, c *cursor) (b *relayv1.Batch, more bool) {
	t.Helper()
	n := h.next(c)
	if n.behind {
		h.begin(c)
		n = h.next(c)
	}
	return decode(t, &n.batch), n.wait == nil
}

// decode sends a batch through the codec as gRPC does.
func decode(t testing.TB, wire *wireBatch) *relayv1.Batch {
	t.Helper()
	codec := newWireCodec()
	data, err := codec.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	b := &relayv1.Batch{}
	if err := codec.Unmarshal(data, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func equal(a, b map[string]*recordv1.Record) bool {
	return maps.EqualFunc(a, b, func(x, y *recordv1.Record) bool { return proto.Equal(x, y) })
}

// relayServer is a relay on a loopback port.
type relayServer struct {
	server  *Server
	address string
	stop    func()
}

// authenticate takes tokens of the form "token-of-<node>".
func authenticate(_ context.Context, token string) (string, error) {
	if token == "unbound" {
		return "", nil
	}
	node, ok := strings.CutPrefix(token, "token-of-")
	if !ok {
		return "", errors.New("unknown token")
	}
	return node, nil
}

func serve(t testing.TB, h *Hub, change func(*ServerConfig)) *relayServer {
	t.Helper()
	cfg := ServerConfig{Authenticate: authenticate}
	if change != nil {
		change(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &relayServer{server: NewServer(h, cfg), address: l.Addr().String()}
	done := make(chan error, 1)
	go func() { done <- r.server.Serve(ctx, l, nil) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// agent is a client with a State.
type agent struct {
	client *Client
	stop   func()

	mu       sync.Mutex
	state    *mirror
	received int // changes received
	effects  int // changes that changed something
	starts   int // snapshots begun
}

func follow(t testing.TB, node string, targets ...string) *agent {
	t.Helper()
	a := &agent{state: newMirror()}
	a.client = NewClient(ClientConfig{
		Targets: targets, Node: node,
		Token: func(context.Context) (string, error) { return "token-of-" + node, nil },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.client.Run(ctx, a.resume, a.take) }()
	a.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(a.stop)
	return a
}

func (a *agent) resume() *relayv1.ResumePoint {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Resume()
}

func (a *agent) take(b *relayv1.Batch) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.received += len(b.GetChanges())
	if b.GetSnapshotStart() {
		a.starts++
	}
	a.effects += len(a.state.Apply(b))
	return nil
}

func (a *agent) records() map[string]*recordv1.Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Collect(a.state.All())
}

func (a *agent) counts() (received, effects, starts int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.received, a.effects, a.starts
}

// upToDate tells whether an agent holds what the hub holds.
func (a *agent) upToDate(t testing.TB, h *Hub) func() bool {
	return func() bool {
		a.mu.Lock()
		at := a.state.Applied()
		a.mu.Unlock()
		return proto.Equal(at, h.At()) && equal(a.records(), contents(t, h))
	}
}
