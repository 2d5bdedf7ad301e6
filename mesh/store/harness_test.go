// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// eventually waits for a condition. The bound only ends a test that would never pass.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// endpoints makes a set of n endpoint records whose content depends on version.
func endpoints(t testing.TB, cluster string, n, version int) record.Set {
	t.Helper()
	var records []*recordv1.Record
	for i := range n {
		records = append(records, &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
			Namespace: "default", Name: fmt.Sprintf("pod-%d", i), Addresses: []string{fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)},
			Identity: 1<<16 | 256, Node: fmt.Sprintf("node-%d", version),
		}}})
	}
	set, err := record.NewSet(records...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// running is a Publisher or Watcher at work.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func run(t *testing.T, f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = f(ctx)
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

func publisher(cluster string) *Publisher {
	p := NewPublisher(cluster, nil)
	p.beat = 100 * time.Millisecond
	return p
}

// publish runs a publisher with a set until it is in the store.
func publish(t *testing.T, e *storetest.Etcd, cluster string, set record.Set) (*Publisher, *running) {
	t.Helper()
	p := publisher(cluster)
	p.SetDesired(set)
	s := open(t, e, cluster)
	r := run(t, func(ctx context.Context) error { return p.Run(ctx, s) })
	eventually(t, cluster+" published", func() bool { return p.Status().Synced })
	return p, r
}

// seen is what a Handler was told.
type seen struct {
	mu       sync.Mutex
	records  record.Set
	states   map[string]ClusterState
	deletes  []string
	puts     int
	history  []string // "east synced", "east stale", …
	maxBatch int
}

func newSeen() *seen { return &seen{records: record.Set{}, states: map[string]ClusterState{}} }

func (s *seen) Records(cluster string, events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxBatch = max(s.maxBatch, len(events))
	for _, e := range events {
		if e.Cluster != cluster || record.ClusterOf(e.Key) != cluster {
			panic(fmt.Sprintf("event %+v in a batch of %s", e, cluster))
		}
		if e.Value == nil {
			delete(s.records, e.Key)
			s.deletes = append(s.deletes, e.Key)
		} else {
			s.records[e.Key] = e.Value
			s.puts++
		}
	}
}

func (s *seen) Cluster(cluster string, state ClusterState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.states[cluster]; was.Synced != state.Synced || was.Stale != state.Stale {
		s.history = append(s.history, fmt.Sprintf("%s synced=%v stale=%v", cluster, state.Synced, state.Stale))
	}
	s.states[cluster] = state
}

func (s *seen) of(cluster string) record.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.records)
	maps.DeleteFunc(out, func(key string, _ []byte) bool { return record.ClusterOf(key) != cluster })
	return out
}

func (s *seen) state(cluster string) ClusterState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[cluster]
}

func (s *seen) has(cluster string, want record.Set) bool {
	return record.Diff(s.of(cluster), want).Empty()
}

func (s *seen) counts() (puts int, deletes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts, slices.Clone(s.deletes)
}

func watch(t *testing.T, e *storetest.Etcd, cluster string) (*Watcher, *seen, *running) {
	t.Helper()
	got := newSeen()
	w := NewWatcher(got, nil)
	w.ping, w.staleAfter = 50*time.Millisecond, 3*time.Second
	s := open(t, e, cluster)
	return w, got, run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
}

// revision is the store's. Keys of heartbeats and fences are excluded by stopping publishers before asking.
func revision(t *testing.T, e *storetest.Etcd) int64 {
	t.Helper()
	resp, err := e.Admin().Get(t.Context(), Root+"none")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}
