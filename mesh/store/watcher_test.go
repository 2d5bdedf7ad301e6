// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

func TestWatchDeliversAClusterOnceItsCanaryExists(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	// A half-published cluster: records and a fence, but no canary yet.
	admin := e.Admin()
	half := endpoints(t, "west", 3, 1)
	for key, value := range half {
		if _, err := admin.Put(t.Context(), Root+key, string(value)); err != nil {
			t.Fatal(err)
		}
	}
	want := endpoints(t, "east", 30, 1)
	publish(t, e, "east", maps.Clone(want))
	_, got, _ := watch(t, e, "west")
	eventually(t, "east delivered", func() bool { return got.state("east").Synced && got.has("east", want) })
	eventually(t, "west is announced", func() bool { return strings.Contains(got.state("west").Why, "first complete publish") })
	if st := got.state("west"); st.Synced || len(got.of("west")) > 0 {
		t.Errorf("half of west was delivered: %+v", st)
	}

	// Its publisher completes it: now it comes, and as a whole.
	all := endpoints(t, "west", 40, 2)
	p, _ := publish(t, e, "west", maps.Clone(all))
	eventually(t, "west delivered", func() bool { return got.state("west").Synced && got.has("west", all) })

	d := record.Delta{Put: endpoints(t, "west", 2, 3), Delete: []string{"west/endpoints/default/pod-30"}}
	all.Apply(d)
	p.Apply(d)
	eventually(t, "west's changes delivered", func() bool { return got.has("west", all) })
	at := got.state("west")
	eventually(t, "west's heartbeats delivered", func() bool {
		now := got.state("west")
		return now.Heartbeat.After(at.Heartbeat) && now.Revision > at.Revision
	})
}

func TestWatchSurvivesTheStore(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	want := endpoints(t, "east", 80, 1)
	p, _ := publish(t, e, "east", maps.Clone(want))
	w, got, _ := watch(t, e, "west")
	eventually(t, "delivered", func() bool { return got.has("east", want) && got.state("east").Synced })

	repaired := func(before ClusterState) func() bool {
		return func() bool {
			now := got.state("east")
			return now.Heartbeat.After(before.Heartbeat) && now.Synced && !now.Stale
		}
	}
	for name, fault := range map[string]func(t *testing.T){
		"restart": func(*testing.T) { e.Restart() },
		"wipe":    func(*testing.T) { e.Wipe() },
		"wipe while other data grow past the old revision": func(t *testing.T) {
			e.Wipe()
			admin := e.Admin()
			for range 500 {
				if _, err := admin.Put(t.Context(), "/other", "x"); err != nil {
					t.Fatal(err)
				}
			}
		},
		"prefix deleted by hand": func(t *testing.T) {
			if _, err := e.Admin().Delete(t.Context(), prefixOf("east"), clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		"records deleted by hand": func(t *testing.T) {
			if _, err := e.Admin().Delete(t.Context(), prefixOf("east")+"endpoints/", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		"canary deleted by hand": func(t *testing.T) {
			if _, err := e.Admin().Delete(t.Context(), prefixOf("east")+keySynced); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			puts, _ := got.counts()
			fault(t)
			before := got.state("east")
			eventually(t, "repaired", repaired(before))
			eventually(t, "reachable again", func() bool { return w.Status().Reachable })
			after, deletes := got.counts()
			if len(deletes) > 0 || after != puts {
				t.Fatalf("drained or repeated: %d deletes, %d needless puts", len(deletes), after-puts)
			}
			if !got.has("east", want) {
				t.Fatal("what was delivered differs from what is published")
			}
		})
	}

	t.Run("changes made while the store was down arrive", func(t *testing.T) {
		e.Stop()
		d := record.Delta{Put: endpoints(t, "east", 3, 9), Delete: []string{"east/endpoints/default/pod-70"}}
		want.Apply(d)
		p.Apply(d)
		eventually(t, "the watcher noticed", func() bool { return !w.Status().Reachable })
		e.Up()
		eventually(t, "changes delivered", func() bool { return got.has("east", want) })
		if _, deletes := got.counts(); !slices.Equal(deletes, d.Delete) {
			t.Errorf("deleted %v", deletes)
		}
	})

	t.Run("an old backup wins nowhere", func(t *testing.T) {
		old := e.Backup()
		eventually(t, "publisher back", func() bool { return p.Status().Synced })
		d := record.Delta{Put: endpoints(t, "east", 5, 10), Delete: []string{"east/endpoints/default/pod-60"}}
		want.Apply(d)
		p.Apply(d)
		eventually(t, "changes delivered", func() bool { return got.has("east", want) })
		puts, deletes := got.counts()
		e.Restore(old)
		before := got.state("east")
		eventually(t, "repaired", repaired(before))
		after, deletesAfter := got.counts()
		if after != puts || len(deletesAfter) != len(deletes) {
			t.Errorf("the backup's state was delivered: %d puts, %d deletes", after-puts, len(deletesAfter)-len(deletes))
		}
		if !got.has("east", want) {
			t.Error("what was delivered differs from what is published")
		}
	})
}

// A dead cluster can't repair anything, so nothing may ever be taken from it.
func TestWatchKeepsADeadCluster(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	want := endpoints(t, "east", 20, 1)
	_, r := publish(t, e, "east", maps.Clone(want))
	w, got, _ := watch(t, e, "west")
	eventually(t, "delivered", func() bool { return got.state("east").Synced })
	r.stop()
	eventually(t, "stale without heartbeats", func() bool { return got.state("east").Stale })
	e.Wipe()
	eventually(t, "the wipe is noticed", func() bool { return strings.Contains(got.state("east").Why, "lost") })
	if st := got.state("east"); !st.Synced || !st.Stale || !got.has("east", want) {
		t.Errorf("state %+v with %d records", st, len(got.of("east")))
	}

	t.Run("until it is forgotten", func(t *testing.T) {
		w.Forget("east")
		w.Forget("never-known")
		eventually(t, "drained", func() bool { return len(got.of("east")) == 0 })
		eventually(t, "not known any more", func() bool { return w.Status().Clusters == 0 && w.Status().Records == 0 })
	})
	t.Run("and comes back if it lives", func(t *testing.T) {
		publish(t, e, "east", maps.Clone(want))
		eventually(t, "back", func() bool { st := got.state("east"); return st.Synced && !st.Stale && got.has("east", want) })
	})
}

// A connection cut off, and the history it would need compacted meanwhile: the client's own resume must fail, and the
// watcher must deliver the differences.
func TestWatchListsAgainAfterCompaction(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	want := endpoints(t, "east", 50, 1)
	p, _ := publish(t, e, "east", maps.Clone(want))
	link := newCable(t, e.Endpoint())
	got := newSeen()
	w := NewWatcher(got, nil)
	s, err := Open(t.Context(), Config{Endpoints: []string{link.endpoint()}, TLS: e.TLS("west"), Cluster: "west"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	watching := run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
	eventually(t, "delivered", func() bool { return got.state("east").Synced })

	link.cut()
	d := record.Delta{Put: endpoints(t, "east", 5, 2), Delete: []string{"east/endpoints/default/pod-40"}}
	want.Apply(d)
	p.Apply(d)
	eventually(t, "published", func() bool {
		stored, _ := stored(t, e, "east")
		return record.Diff(stored, want).Empty()
	})
	// What was written at the compacted revision itself can still be watched, so let some more revisions pass.
	for range 3 {
		if _, err := e.Admin().Put(t.Context(), "/other", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Admin().Compact(t.Context(), revision(t, e), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	link.restore()
	eventually(t, "differences delivered", func() bool { return got.has("east", want) })
	if watching.stop(); w.lists != 2 {
		t.Errorf("listed everything %d times, want at the start and after the compaction", w.lists)
	}
	if _, deletes := got.counts(); !slices.Equal(deletes, d.Delete) {
		t.Errorf("deleted %v", deletes)
	}
}

func TestWatcherKeepsItsMemoryAcrossStores(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	want := endpoints(t, "east", 20, 1)
	p, _ := publish(t, e, "east", maps.Clone(want))
	w, got, r := watch(t, e, "west")
	eventually(t, "delivered", func() bool { return got.state("east").Synced })
	r.stop()
	d := record.Delta{Delete: []string{"east/endpoints/default/pod-4"}}
	want.Apply(d)
	p.Apply(d)
	s := open(t, e, "west")
	again := run(t, func(ctx context.Context) error { return w.Run(ctx, s) })
	eventually(t, "the missed delete is delivered", func() bool { return got.has("east", want) })
	again.stop()
	if puts, deletes := got.counts(); puts != 20 || len(deletes) != 1 {
		t.Errorf("%d puts, %v deleted", puts, deletes)
	}
	if w.lists != 1 {
		t.Errorf("listed everything %d times although history goes back far enough", w.lists)
	}
}

// Names that begin alike must not be mixed up.
func TestWatchTellsSimilarNamesApart(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "east-1", "eas")
	sets := map[string]record.Set{}
	for i, cluster := range []string{"east", "east-1", "eas"} {
		sets[cluster] = endpoints(t, cluster, 5+i, 1)
		publish(t, e, cluster, maps.Clone(sets[cluster]))
	}
	_, got, _ := watch(t, e, "east")
	for cluster, want := range sets {
		eventually(t, cluster, func() bool { return got.state(cluster).Synced && got.has(cluster, want) })
	}
	if _, err := e.Admin().Delete(t.Context(), prefixOf("east")+keySynced); err != nil {
		t.Fatal(err)
	}
	if got.state("east-1").Stale || got.state("eas").Stale {
		t.Error("another cluster became stale")
	}
}
