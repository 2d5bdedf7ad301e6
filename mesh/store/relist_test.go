// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

// order notes which keys came and went.
type order struct{ events []string }

func (o *order) Records(_ string, events []Event) {
	for _, e := range events {
		if e.Value == nil {
			e.Key = "-" + e.Key
		}
		o.events = append(o.events, e.Key)
	}
}

func (o *order) Cluster(string, ClusterState) {}

func TestListDeliversWhatIsNamedFirst(t *testing.T) {
	o := &order{}
	w := NewWatcher(o, slog.New(slog.DiscardHandler))
	list := func(revision int64, keys ...string) {
		l := &listing{canary: true}
		for _, rest := range keys {
			l.add("west", rest, kv{value: []byte("v"), modRevision: revision})
		}
		w.takeList("west", l, revision)
	}
	// As etcd lists them: by key.
	list(1, "cluster", "endpoints/shop/a", "endpoints/shop/b", "identities/300", "nodes/n1", "policies/NetworkPolicy/shop/p", "services/shop/s", "slices/shop/s-1")
	want := []string{
		"west/cluster", "west/identities/300", "west/nodes/n1", "west/endpoints/shop/a", "west/endpoints/shop/b",
		"west/services/shop/s", "west/slices/shop/s-1", "west/policies/NetworkPolicy/shop/p",
	}
	if diff := cmp.Diff(want, o.events); diff != "" {
		t.Errorf("first list (-want +got):\n%s", diff)
	}
	o.events = nil
	list(2, "cluster", "endpoints/shop/c", "identities/301", "services/shop/s")
	want = []string{
		"west/identities/301", "west/endpoints/shop/c",
		"-west/policies/NetworkPolicy/shop/p", "-west/slices/shop/s-1", "-west/endpoints/shop/a", "-west/endpoints/shop/b", "-west/nodes/n1", "-west/identities/300",
	}
	if diff := cmp.Diff(want, o.events); diff != "" {
		t.Errorf("second list (-want +got):\n%s", diff)
	}
}

// A member whose records can't be listed, and that asks for it all the time, is followed no longer; the others are.
func TestAClusterThatCantBeListedHoldsUpNoOther(t *testing.T) {
	e := storetest.Start(t, "evil", "good", "reader")
	p, _ := publish(t, e, "good", endpoints(t, "good", 10, 1))
	member, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}, TLS: e.TLS("evil"), DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	put := func(key, value string) {
		t.Helper()
		if _, err := member.Put(t.Context(), Root+"evil/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	got, lists := newSeen(), atomic.Int32{}
	w := NewWatcher(got, slog.New(slog.DiscardHandler))
	w.list = func(ctx context.Context, s *Store, prefix string, each func(kv)) (int64, error) {
		if prefix == prefixOf("evil") {
			lists.Add(1)
			return 0, errors.New("too much")
		}
		return s.list(ctx, prefix, each)
	}
	s := open(t, e, "reader")
	run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
	for version := range 20 {
		put(keyHeartbeat, time.Now().UTC().Format(time.RFC3339Nano))
		set := endpoints(t, "good", 10, version+2)
		p.SetDesired(set)
		eventually(t, "the other cluster's change is seen", func() bool { return got.has("good", set) })
	}
	if n := lists.Load(); n == 0 || n > 10 {
		t.Errorf("listed %d times for 20 heartbeats", n)
	}
	eventually(t, "the reason is given", func() bool { return strings.Contains(got.state("evil").Why, "can't be listed") })
	if status := w.Status(); !status.Reachable || status.LastError != nil {
		t.Errorf("the store is reachable, and the status is %+v", status)
	}
}

// slowKV answers no question for more than ten keys.
type slowKV struct {
	clientv3.KV
	asked int
}

func (k *slowKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	k.asked++
	if op := clientv3.OpGet(key, opts...); op.Limit() > 10 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return k.KV.Get(ctx, key, opts...)
}

// Pages are sized by what came before. Where larger records follow, or the link is slow, smaller ones are asked for.
func TestAPageThatTakesTooLongIsMadeSmaller(t *testing.T) {
	e := storetest.Start(t, "west")
	s := open(t, e, "west")
	want := endpoints(t, "west", 40, 1)
	publish(t, e, "west", want)
	slow := &slowKV{KV: s.client.KV}
	s.client.KV, s.timeout = slow, 50*time.Millisecond
	eventually(t, "all is listed", func() bool {
		n := 0
		_, err := s.list(t.Context(), prefixOf("west"), func(kv) { n++ })
		return err == nil && n >= len(want)
	})
	if slow.asked < 5 {
		t.Errorf("40 records in %d pages of at most 10", slow.asked)
	}
}

// However many clusters are doubted at once, a few are listed at a time, and the others buffer nothing while they wait.
func TestAFewClustersAreListedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const again = "c19"       // follows again before its turn
		const listRevision = 1000 // newer than all events
		revision, begun := int64(100), time.Now()
		var running, most atomic.Int32
		var mu sync.Mutex
		listed := map[string]int{}
		w := NewWatcher(newSeen(), slog.New(slog.DiscardHandler))
		list := func(_ context.Context, _ *Store, prefix string, each func(kv)) (int64, error) {
			mu.Lock()
			listed[prefix]++
			most.Store(max(most.Load(), running.Add(1)))
			mu.Unlock()
			time.Sleep(time.Second)
			running.Add(-1)
			each(kv{key: prefix + keySynced})
			each(kv{key: prefix + keyHeartbeat, value: []byte(begun.Add(time.Hour).Format(time.RFC3339Nano))})
			return listRevision, nil
		}
		w.lister = newLister(t.Context(), nil, list)
		beat := func(cluster string) {
			revision++
			w.take([]*clientv3.Event{{Kv: &mvccpb.KeyValue{
				Key: []byte(prefixOf(cluster) + keyHeartbeat), ModRevision: revision,
				Value: []byte(begun.Add(time.Duration(revision) * time.Second).Format(time.RFC3339Nano)),
			}}})
		}
		for n := range 20 {
			cluster := fmt.Sprintf("c%d", n)
			w.takeList(cluster, &listing{canary: true, heartbeat: begun}, 1)
			if n%2 == 1 {
				w.clusters[cluster].relist.after = begun.Add(time.Duration(n) * time.Minute)
			}
			beat(cluster)
		}
		w.takeList(again, &listing{canary: true, heartbeat: begun.Add(time.Hour)}, revision)
		buffering := 0
		for n := range 19 {
			cluster := fmt.Sprintf("c%d", n)
			beat(cluster)
			if v := w.clusters[cluster]; len(v.relist.buffer) > 0 {
				buffering++
			}
		}
		if buffering != parallelLists {
			t.Errorf("%d clusters buffer what comes of them, want %d", buffering, parallelLists)
		}
		for done := 0; done < 19; { // blocks for ever, which the bubble reports, if one is never listed
			select {
			case f := <-w.lister.results:
				done++
				if err := w.takeResult(t.Context(), nil, f); err != nil {
					t.Fatal(err)
				}
			case <-w.lister.timer.C:
				w.startLists()
			}
		}
		w.stopLists(func() {})
		if n := most.Load(); n != parallelLists {
			t.Errorf("%d lists ran at once, want %d", n, parallelLists)
		}
		for n := range 20 {
			cluster := fmt.Sprintf("c%d", n)
			if want := map[bool]int{false: 1, true: 0}[cluster == again]; listed[prefixOf(cluster)] != want {
				t.Errorf("%s was listed %d times, want %d", cluster, listed[prefixOf(cluster)], want)
			}
			if v := w.clusters[cluster]; !v.following || v.relist.wanted || v.relist.running {
				t.Errorf("%s: following %t, wanted %t, running %t", cluster, v.following, v.relist.wanted, v.relist.running)
			}
		}
	})
}

// A session that ends leaves what it had not listed to the next one.
func TestListsThatASessionDidNotEndAreWantedByTheNext(t *testing.T) {
	w := NewWatcher(newSeen(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	w.lister = newLister(ctx, nil, func(ctx context.Context, _ *Store, _ string, _ func(kv)) (int64, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	for n := range 6 {
		w.wantList(w.view(fmt.Sprintf("c%d", n)))
	}
	w.takeEvents("c0", []*clientv3.Event{{Kv: &mvccpb.KeyValue{Key: []byte(prefixOf("c0") + keyHeartbeat), ModRevision: 5}}})
	w.stopLists(cancel)
	for cluster, v := range w.clusters {
		if r := v.relist; !r.wanted || r.running || r.buffer != nil || r.bytes != 0 {
			t.Errorf("%s: wanted %t, running %t, buffer of %d bytes", cluster, r.wanted, r.running, r.bytes)
		}
	}
}

func TestHowLongAClusterIsNotListed(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		before, took time.Duration
		failed       bool
		want         time.Duration
	}{
		"listed at once":              {0, 0, false, minPause},
		"its share of the connection": {0, 20 * time.Second, false, 200 * time.Second},
		"failed for the first time":   {0, 0, true, minPause},
		"failed again":                {4 * time.Second, 0, true, 8 * time.Second},
		"failed often":                {maxPause, 0, true, maxPause},
		"failed after a long time":    {0, 30 * time.Second, true, maxPause},
		"listed after failures":       {maxPause, 0, false, minPause},
	} {
		r := relist{pause: tt.before, running: true}
		r.ended(now, tt.took, tt.failed)
		if got := r.after.Sub(now); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
