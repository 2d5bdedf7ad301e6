// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
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
