// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

// stored lists a cluster's records in the store, and its special keys.
func stored(t *testing.T, e *storetest.Etcd, cluster string) (record.Set, map[string]string) {
	t.Helper()
	resp, err := e.Admin().Get(t.Context(), prefixOf(cluster), clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	records, special := record.Set{}, map[string]string{}
	for _, found := range resp.Kvs {
		key := strings.TrimPrefix(string(found.Key), Root)
		if record.Kind(key) != "" {
			records[key] = found.Value
		} else {
			special[strings.TrimPrefix(key, cluster+"/")] = string(found.Value)
		}
	}
	return records, special
}

func TestPublishMakesThePrefixEqualToWhatIsDesired(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	want := endpoints(t, "east", 250, 1)
	p, r := publish(t, e, "east", maps.Clone(want))
	got, special := stored(t, e, "east")
	if d := record.Diff(got, want); !d.Empty() {
		t.Fatalf("store differs: %d puts, %d deletes missing", len(d.Put), len(d.Delete))
	}
	for _, key := range []string{keyLeader, keyHeartbeat, keySynced} {
		if special[key] == "" {
			t.Errorf("%s is missing", key)
		}
	}

	t.Run("deltas", func(t *testing.T) {
		d := record.Delta{Put: endpoints(t, "east", 3, 2), Delete: []string{"east/endpoints/default/pod-7"}}
		want.Apply(d)
		p.Apply(d)
		eventually(t, "delta stored", func() bool {
			got, _ := stored(t, e, "east")
			return record.Diff(got, want).Empty()
		})
	})

	t.Run("heartbeats grow", func(t *testing.T) {
		_, before := stored(t, e, "east")
		eventually(t, "a newer heartbeat", func() bool {
			_, now := stored(t, e, "east")
			return parseHeartbeat([]byte(now[keyHeartbeat])).After(parseHeartbeat([]byte(before[keyHeartbeat])))
		})
	})

	t.Run("foreign keys are left out", func(t *testing.T) {
		p.Apply(record.Delta{Put: record.Set{"west/nodes/a": []byte("x"), "east/heartbeat": []byte("x"), "east/../west/synced": nil}})
		p.Apply(record.Delta{Delete: []string{"east/endpoints/default/pod-8"}})
		delete(want, "east/endpoints/default/pod-8")
		eventually(t, "the rest is published", func() bool {
			got, _ := stored(t, e, "east")
			return record.Diff(got, want).Empty()
		})
		if others, special := stored(t, e, "west"); len(others)+len(special) > 0 {
			t.Errorf("wrote under west: %v %v", others, special)
		}
	})

	t.Run("a new leader writes nothing that is there", func(t *testing.T) {
		r.stop()
		before := revision(t, e)
		_, next := publish(t, e, "east", maps.Clone(want))
		next.stop()
		got, _ := stored(t, e, "east")
		if !record.Diff(got, want).Empty() {
			t.Error("store differs")
		}
		resp, err := e.Admin().Get(t.Context(), prefixOf("east"), clientv3.WithPrefix(), clientv3.WithMinModRev(before+1))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range resp.Kvs {
			if rest := strings.TrimPrefix(string(found.Key), prefixOf("east")); rest != keyLeader && rest != keyHeartbeat {
				t.Errorf("needless write of %s", rest)
			}
		}
	})
}

func TestPublishNothingBeforeDesired(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	want := endpoints(t, "east", 5, 1)
	_, r := publish(t, e, "east", maps.Clone(want))
	r.stop()
	_, before := stored(t, e, "east")

	p := publisher("east")
	s := open(t, e, "east")
	run(t, func(ctx context.Context) error { return p.Run(ctx, s) })
	eventually(t, "the new leader is connected", func() bool { return p.Status().Reachable })
	p.Apply(record.Delta{Delete: []string{"east/endpoints/default/pod-1"}})
	first := p.Status().LastSuccess
	eventually(t, "some rounds passed", func() bool { return p.Status().LastSuccess.After(first.Add(3 * p.beat)) })
	got, special := stored(t, e, "east")
	if !record.Diff(got, want).Empty() {
		t.Error("a publisher without a desired set changed records")
	}
	if special[keyHeartbeat] != before[keyHeartbeat] {
		t.Error("a heartbeat says that records were seen to, but nobody knows what is desired")
	}
}

func TestSecondLeaderFencesTheFirst(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	first, firstRun := publish(t, e, "east", endpoints(t, "east", 10, 1))
	want := endpoints(t, "east", 10, 2)
	publish(t, e, "east", maps.Clone(want))
	first.SetDesired(endpoints(t, "east", 20, 3))
	<-firstRun.done
	if !errors.Is(firstRun.err, ErrFenced) {
		t.Fatalf("the first leader ended with %v", firstRun.err)
	}
	got, _ := stored(t, e, "east")
	if !record.Diff(got, want).Empty() {
		t.Error("the first leader wrote after the second took over")
	}
}

func TestStoreRefusesWritesOutsideThePrefix(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "east-1")
	s := open(t, e, "east")
	for _, key := range []string{prefixOf("east-1") + "nodes/a", Root + "east", Root + "eastern/x", "/other"} {
		if _, err := s.client.Put(t.Context(), key, "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("put %s: %v", key, err)
		}
	}
	// A publisher whose credential is another cluster's reports it and goes on trying.
	p := publisher("east-1")
	p.SetDesired(endpoints(t, "east-1", 1, 1))
	wrong := &Store{client: s.client, cluster: "east-1", timeout: s.timeout, log: s.log}
	run(t, func(ctx context.Context) error { return p.Run(ctx, wrong) })
	eventually(t, "the refusal is in the status", func() bool {
		return errors.Is(p.Status().LastError, rpctypes.ErrPermissionDenied)
	})
	if st := p.Status(); st.Reachable || st.Synced {
		t.Errorf("status %+v", st)
	}
}

func TestPublisherRepairsTheStore(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	want := endpoints(t, "east", 120, 1)
	p, _ := publish(t, e, "east", maps.Clone(want))
	whole := func() bool {
		got, special := stored(t, e, "east")
		return record.Diff(got, want).Empty() && special[keySynced] != ""
	}
	for name, fault := range map[string]func(t *testing.T){
		"restart": func(*testing.T) { e.Restart() },
		"wipe":    func(*testing.T) { e.Wipe() },
		"prefix deleted by hand": func(t *testing.T) {
			if _, err := e.Admin().Delete(t.Context(), prefixOf("east"), clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		"one record deleted by hand": func(t *testing.T) {
			if _, err := e.Admin().Delete(t.Context(), Root+"east/endpoints/default/pod-5"); err != nil {
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
			fault(t)
			eventually(t, "the store is whole again", whole)
			eventually(t, "the status says so", func() bool { return p.Status().Synced })
		})
	}
	t.Run("old backup", func(t *testing.T) {
		old := e.Backup()
		eventually(t, "back after the backup", func() bool { return p.Status().Reachable })
		d := record.Delta{Put: endpoints(t, "east", 60, 2), Delete: []string{"east/endpoints/default/pod-100"}}
		want.Apply(d)
		p.Apply(d)
		eventually(t, "changed", whole)
		e.Restore(old)
		eventually(t, "the store is whole again", whole)
	})
}

func TestPublish10kRecords(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	start := time.Now()
	publish(t, e, "east", endpoints(t, "east", 10_000, 1))
	wrote := time.Since(start)
	w, got, _ := watch(t, e, "east")
	eventually(t, "all delivered", func() bool { return got.state("east").Synced })
	if n := len(got.of("east")); n != 10_000 || w.Status().Records != n {
		t.Errorf("delivered %d, status says %d", n, w.Status().Records)
	}
	t.Logf("published 10,000 records in %s, read in %s", wrote, time.Since(start)-wrote)
	if got.maxBatch > maxEvents {
		t.Errorf("a batch of %d", got.maxBatch)
	}
}
