// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
