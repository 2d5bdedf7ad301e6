// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// large is a hub with more than flow control lets through to an agent that takes nothing.
func large(t testing.TB) *Hub {
	t.Helper()
	const records = 4000
	h := NewHub(0)
	var changes []*relayv1.Change
	for i := range records {
		c := put("east", fmt.Sprintf("p%d", i), 1)
		c.GetRecord().GetEndpoint().Node = strings.Repeat("n", 5000)
		changes = append(changes, c)
	}
	apply(t, h, changes...)
	h.SetClusters(synced("east"))
	return h
}

// halting is an agent that stops in the middle of its first batch that holds records, until released.
type halting struct {
	*agent
	halted, release chan struct{}
}

func halt(t testing.TB, node string, targets ...string) *halting {
	t.Helper()
	a := &halting{agent: &agent{state: newMirror()}, halted: make(chan struct{}), release: make(chan struct{})}
	a.client = NewClient(ClientConfig{Targets: targets, Node: node, Token: func(context.Context) (string, error) { return "token-of-" + node, nil }})
	a.client.next = 0
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var once sync.Once
	go func() {
		done <- a.client.Run(ctx, a.resume, func(b *relayv1.Batch) error {
			if len(b.GetChanges()) > 0 {
				once.Do(func() { close(a.halted); <-a.release })
			}
			return a.take(b)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return a
}

func TestSnapshotsAreSentAFewAtATime(t *testing.T) {
	t.Parallel()
	h := large(t)
	r := serve(t, h, func(c *ServerConfig) { c.Snapshots = 1 })
	first := halt(t, "first", r.address)
	<-first.halted
	second := follow(t, "second", r.address)
	eventually(t, "the second waits", func() bool { return r.server.Load().Waiting == 1 })
	eventually(t, "and is served all the same", func() bool { return second.client.Status().Connected })
	if !second.client.Status().LastBatch.IsZero() {
		t.Error("something was sent before it was its turn: an agent takes it for news")
	}
	close(first.release)
	eventually(t, "the first has all", first.upToDate(t, h))
	eventually(t, "the second has all", second.upToDate(t, h))
	eventually(t, "all places are free", func() bool { return r.server.Load() == Load{} })
}

func TestAgentThatLeavesTheQueueHoldsNoPlace(t *testing.T) {
	t.Parallel()
	p := newPlaces(1)
	leave, ok := p.try()
	if !ok {
		t.Fatal("no place although all are free")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("a place for one who left: %v", err)
	}
	leave()
	leave()
	again, ok := p.try()
	if !ok {
		t.Fatal("the place was lost")
	}
	if _, ok := p.try(); ok {
		t.Fatal("leaving twice made a second place")
	}
	again()
}

func TestSlowSnapshotGivesItsPlaceAway(t *testing.T) {
	t.Parallel()
	p := newPlaces(1)
	p.keep = time.Millisecond
	leave, _ := p.try()
	next, err := p.take(t.Context()) // although nobody left
	if err != nil {
		t.Fatal(err)
	}
	leave()
	next()
	if p.taken.Load() != 0 {
		t.Errorf("%d places are taken", p.taken.Load())
	}
}

func TestAgentThatAcceptsNothingIsCutOff(t *testing.T) {
	t.Parallel()
	h := large(t)
	strict := serve(t, h, func(c *ServerConfig) { c.Stall = 50 * time.Millisecond })
	lenient := serve(t, h, nil)
	a := halt(t, "stuck", strict.address, lenient.address)
	<-a.halted
	eventually(t, "cut off", func() bool { return strict.server.Load().Stuck == 1 })
	eventually(t, "forgotten", func() bool { return len(strict.server.Subscribers()) == 0 })
	close(a.release)
	eventually(t, "back and well at the other", a.upToDate(t, h))
}

// A stream that waits for its agent keeps no more than one batch from being replaced.
func TestSlowStreamKeepsNoOldRecords(t *testing.T) {
	t.Parallel()
	const records = 5000
	h := NewHub(0)
	for i := range records {
		apply(t, h, put("east", fmt.Sprintf("p%d", i), 1))
	}
	var old []weak.Pointer[entry]
	for _, e := range h.entries {
		old = append(old, weak.Make(e))
	}
	s := NewServer(h, ServerConfig{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler)})
	stuck := newStuckStream(t.Context())
	var streams sync.WaitGroup
	streams.Go(func() { stuck.subscribe(s) })
	<-stuck.blocked
	for i := range records {
		apply(t, h, put("east", fmt.Sprintf("p%d", i), 2))
	}
	runtime.GC()
	kept := 0
	for _, p := range old {
		if p.Value() != nil {
			kept++
		}
	}
	if kept > maxBatchChanges {
		t.Errorf("a slow stream keeps %d replaced records", kept)
	}
	close(stuck.release)
	streams.Wait()
}

// stuckStream is an agent that takes no records until it is released, and then leaves.
type stuckStream struct {
	grpc.ServerStream
	ctx              context.Context
	blocked, release chan struct{}
	once             sync.Once
}

func newStuckStream(ctx context.Context) *stuckStream {
	return &stuckStream{ctx: context.WithValue(ctx, nodeKey{}, "n"), blocked: make(chan struct{}), release: make(chan struct{})}
}

func (s *stuckStream) subscribe(server *Server) {
	to := &grpc.GenericServerStream[relayv1.SubscribeRequest, relayv1.Batch]{ServerStream: s}
	_ = server.Subscribe(&relayv1.SubscribeRequest{Node: "n"}, to)
}

func (s *stuckStream) SendHeader(metadata.MD) error { return nil }

func (s *stuckStream) Context() context.Context { return s.ctx }

func (s *stuckStream) SendMsg(m any) error {
	if len(m.(*wireBatch).entries) == 0 {
		return nil
	}
	s.once.Do(func() { close(s.blocked) })
	<-s.release
	return context.Canceled
}

// An agent that fails before it has a place to resume from is to try less and less often: it would be sent a snapshot
// each time.
func TestOnlyAPlaceToResumeFromIsProgress(t *testing.T) {
	t.Parallel()
	h := large(t)
	r := serve(t, h, nil)
	c := NewClient(ClientConfig{Targets: []string{r.address}, Node: "n", Token: func(context.Context) (string, error) { return "token-of-n", nil }})
	enough := errors.New("enough")
	for name, tc := range map[string]struct {
		until func(*relayv1.Batch) bool
		want  bool
	}{
		"fails at the first batch": {(*relayv1.Batch).GetSnapshotStart, false},
		"fails at the last batch":  {(*relayv1.Batch).GetSnapshotEnd, false},
		"fails at a later delta":   {func(b *relayv1.Batch) bool { return len(b.GetChanges()) == 1 }, true},
	} {
		progress, err := c.attempt(t.Context(), nil, func(b *relayv1.Batch) error {
			if tc.until(b) {
				return enough
			}
			if b.GetSnapshotEnd() {
				apply(t, h, put("east", name[len(name)-5:], 1))
			}
			return nil
		})
		if progress != tc.want || !errors.Is(err, enough) {
			t.Errorf("%s: progress %v, %v", name, progress, err)
		}
	}
}

// A node has one stream: with more it would keep the places among the snapshots from the other nodes.
func TestANodeHasOneStream(t *testing.T) {
	t.Parallel()
	s := serve(t, NewHub(0), nil)
	for range 3 {
		follow(t, "n1", s.address)
	}
	follow(t, "n2", s.address)
	eventually(t, "one stream a node", func() bool {
		subs := s.server.Subscribers()
		return len(subs) == 2 && subs[0].Node == "n1" && subs[1].Node == "n2"
	})
}
