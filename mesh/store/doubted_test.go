// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

// logged counts what is logged.
type logged struct{ n *atomic.Int32 }

func (l logged) Enabled(context.Context, slog.Level) bool  { return true }
func (l logged) Handle(context.Context, slog.Record) error { l.n.Add(1); return nil }
func (l logged) WithAttrs([]slog.Attr) slog.Handler        { return l }
func (l logged) WithGroup(string) slog.Handler             { return l }
func asMember(t *testing.T, e *storetest.Etcd, cluster string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}, TLS: e.TLS(cluster), DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A member that writes heartbeats past its fence is doubted with each, and believed again with each list. Readers list it once a
// second all the same, and follow the others meanwhile, however long a list takes.
func TestAClusterThatIsDoubtedAllTheTime(t *testing.T) {
	for name, listTakes := range map[string]time.Duration{"lists at once": 0, "takes long to list": 3 * time.Second} {
		t.Run(name, func(t *testing.T) {
			e := storetest.Start(t, "evil", "good", "reader")
			p, _ := publish(t, e, "good", endpoints(t, "good", 10, 1))
			_, evil := publish(t, e, "evil", endpoints(t, "evil", 10, 1))
			got, lists, lines := newSeen(), atomic.Int32{}, atomic.Int32{}
			w := NewWatcher(got, slog.New(logged{&lines}))
			w.list = func(ctx context.Context, s *Store, prefix string, each func(kv)) (int64, error) {
				lists.Add(1)
				select {
				case <-time.After(listTakes):
				case <-ctx.Done():
				}
				return s.list(ctx, prefix, each)
			}
			s := open(t, e, "reader")
			run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
			eventually(t, "both are synced", func() bool { return got.state("good").Synced && got.state("evil").Synced })
			evil.stop()
			lists.Store(0)
			lines.Store(0)
			got.mu.Lock()
			before := len(got.history)
			got.mu.Unlock()

			ctx, stop := context.WithCancel(t.Context())
			done, member, begun := make(chan struct{}), asMember(t, e, "evil"), time.Now()
			go func() {
				defer close(done)
				for ctx.Err() == nil {
					_, _ = member.Put(ctx, Root+"evil/"+keyHeartbeat, time.Now().UTC().Format(time.RFC3339Nano))
				}
			}()
			slowest := time.Duration(0)
			for v := range 20 {
				set, at := endpoints(t, "good", 10, v+2), time.Now()
				p.SetDesired(set)
				eventually(t, "the other cluster's change is seen", func() bool { return got.has("good", set) })
				slowest = max(slowest, time.Since(at))
				time.Sleep(50 * time.Millisecond)
			}
			stop()
			<-done
			if listTakes > 0 && slowest > listTakes/2 {
				t.Errorf("another cluster's change took %s while one was listed that takes %s", slowest, listTakes)
			}
			seconds := int(time.Since(begun)/time.Second) + 1
			if n := int(lists.Load()); n == 0 || n > seconds {
				t.Errorf("listed %d times in %d s", n, seconds)
			}
			if n := int(lines.Load()); n > 2+seconds/int(logEvery/time.Second) {
				t.Errorf("%d lines are logged in %d s", n, seconds)
			}
			got.mu.Lock()
			defer got.mu.Unlock()
			changes := 0
			for _, state := range got.history[before:] {
				if strings.HasPrefix(state, "evil") {
					changes++
				}
			}
			if changes > 2*seconds+2 {
				t.Errorf("%d changes of its state in %d s", changes, seconds)
			}
		})
	}
}

// What came while a cluster was listed is newer than the list.
func TestEventsThatComeWhileAClusterIsListedCount(t *testing.T) {
	e := storetest.Start(t, "west", "reader")
	p, _ := publish(t, e, "west", endpoints(t, "west", 10, 1))
	got, listing, goOn := newSeen(), make(chan struct{}, 10), make(chan struct{})
	w := NewWatcher(got, slog.New(slog.DiscardHandler))
	w.list = func(ctx context.Context, s *Store, prefix string, each func(kv)) (int64, error) {
		revision, err := s.list(ctx, prefix, each)
		listing <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return revision, err
	}
	s := open(t, e, "reader")
	run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
	eventually(t, "it is synced", func() bool { return got.state("west").Synced })
	member := asMember(t, e, "west")
	for _, key := range []string{"endpoints/shop/stray", keyHeartbeat} {
		value := time.Now().Add(time.Minute).UTC().Format(time.RFC3339Nano)
		if _, err := member.Put(t.Context(), Root+"west/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	<-listing
	want := endpoints(t, "west", 12, 7)
	p.SetDesired(want)
	eventually(t, "the change is in the store", func() bool { s := p.Status(); return s.Synced && s.Pending == 0 })
	close(goOn)
	eventually(t, "the change is seen", func() bool { return got.has("west", want) })
}

// A cluster that died before this reader started is not alive because its last heartbeat is there.
func TestAClusterThatDiedLongAgoIsStale(t *testing.T) {
	w := NewWatcher(newSeen(), slog.New(slog.DiscardHandler))
	for name, age := range map[string]time.Duration{"living": HeartbeatInterval, "dead": 2 * StaleAfter} {
		w.takeList(name, &listing{canary: true, heartbeat: time.Now().Add(-age)}, 1)
		if got := w.clusters[name].delivered; !got.Synced || got.Stale != (name == "dead") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	dead := w.clusters["dead"]
	if !dead.beat(time.Now()) {
		t.Error("a new heartbeat is none")
	}
	if silent, _ := w.silent(dead, time.Now()); silent {
		t.Error("a cluster that is heard stays silent")
	}
}
