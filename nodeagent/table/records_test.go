// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// drawnEndpoint is one of few, so that keys and addresses meet again.
func drawnEndpoint(t *rapid.T) (string, *record.Endpoint) {
	name := fmt.Sprintf("p%d", rapid.IntRange(0, 4).Draw(t, "pod"))
	cluster := rapid.SampledFrom([]string{"east", "west"}).Draw(t, "cluster")
	e := &record.Endpoint{Namespace: "shop", Name: name, Identity: uint32(rapid.IntRange(0, 2).Draw(t, "identity"))}
	for range rapid.IntRange(1, 2).Draw(t, "addresses") {
		e.Addresses = append(e.Addresses, drawnAddr(t))
	}
	return cluster + "/endpoints/shop/" + name, e
}

func drawnAddr(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 3).Draw(t, "address"))})
}

func mirrored[T comparable](t *rapid.T, into map[string]T) func(Change[T]) {
	return func(c Change[T]) {
		var none T
		if have := into[c.Key]; have != c.Before {
			t.Fatalf("%s changes from %v, and was seen as %v", c.Key, c.Before, have)
		}
		if c.Before == none && c.Now == none {
			t.Fatalf("%s changes from nothing to nothing", c.Key)
		}
		into[c.Key] = c.Now
		if c.Now == none {
			delete(into, c.Key)
		}
	}
}

// Whatever is written in whatever portions, followers end up with what the tables hold, and looking up by address finds
// what looking at every endpoint finds.
func TestFollowersAndIndexEqualTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRecordTables()
		w := r.RecordWriter()
		want := map[string]*record.Endpoint{}
		type seen struct {
			*Follower
			endpoints map[string]*record.Endpoint
		}
		var followers []seen
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				w.Write(func(x RecordTxn) {
					for range rapid.IntRange(1, 4).Draw(t, "changes") {
						key, e := drawnEndpoint(t)
						if rapid.Bool().Draw(t, "drop") {
							if _, had := want[key]; x.Drop(key) != had {
								t.Fatalf("drop of %s: changed %t", key, !had)
							}
							delete(want, key)
							continue
						}
						if same := reflect.DeepEqual(want[key], e); x.Put(key, e) == same {
							t.Fatalf("put of %s: changed %t", key, same)
						}
						want[key] = e
					}
				})
			},
			"follow": func(t *rapid.T) {
				s := seen{r.FollowRecords(), map[string]*record.Endpoint{}}
				Visit(s.Follower, r.Endpoints, mirrored(t, s.endpoints))
				followers = append(followers, s)
			},
			"look": func(t *rapid.T) {
				for _, s := range followers {
					if !rapid.Bool().Draw(t, "looks") {
						continue
					}
					s.Next()
					if !reflect.DeepEqual(s.endpoints, want) {
						t.Fatalf("a follower saw %v, want %v", s.endpoints, want)
					}
					select {
					case <-s.Watch():
						t.Fatal("there is more after everything was seen")
					default:
					}
				}
			},
			"ask": func(t *rapid.T) {
				addr := drawnAddr(t)
				var keys []string
				for key, e := range want {
					if slices.Contains(e.Addresses, addr) {
						keys = append(keys, key)
					}
				}
				slices.Sort(keys)
				var got []string
				for _, e := range r.EndpointsAt(addr) {
					got = append(got, e.Cluster+"/endpoints/"+e.Namespace+"/"+e.Name)
				}
				if !slices.Equal(got, keys) {
					t.Fatalf("at %s are %v, want %v", addr, got, keys)
				}
			},
			"": func(t *rapid.T) {
				if got := maps.Collect(r.Endpoints.All()); !reflect.DeepEqual(got, want) || w.Len() != len(want) {
					t.Fatalf("the table holds %v, want %v", got, want)
				}
			},
		})
	})
}

// A follower sees kinds in the order in which they depend on each other, and a whole batch at once.
func TestIdentitiesAreSeenBeforeEndpoints(t *testing.T) {
	r := newRecordTables()
	w := r.RecordWriter()
	f := r.FollowRecords()
	var seen []string
	Visit(f, r.Endpoints, func(c Change[*record.Endpoint]) { seen = append(seen, c.Key) })
	Visit(f, r.Identities, func(c Change[*record.Identity]) { seen = append(seen, c.Key) })
	f.Next()
	if len(seen) > 0 {
		t.Fatalf("seen in an empty table: %v", seen)
	}
	w.Write(func(x RecordTxn) {
		x.Put("east/endpoints/shop/a", &record.Endpoint{Namespace: "shop", Name: "a", Identity: 65792})
		x.Put("east/identities/65792", &record.Identity{ID: 65792})
	})
	<-f.Watch()
	f.Next()
	if want := []string{"east/identities/65792", "east/endpoints/shop/a"}; !slices.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

func TestEveryKindHasATable(t *testing.T) {
	r := newRecordTables()
	for _, kind := range record.Kinds() {
		if r.kinds[kind] == nil {
			t.Errorf("records of kind %s have no table", kind)
		}
	}
	if len(r.kinds) != len(record.Kinds()) {
		t.Errorf("%d tables for %d kinds", len(r.kinds), len(record.Kinds()))
	}
}

// Where an object doesn't fit its key nothing may be believed, the former object neither.
func TestAnObjectOfAnotherKindTakesTheFormerAway(t *testing.T) {
	r := newRecordTables()
	r.RecordWriter().Write(func(x RecordTxn) {
		x.Put("east/nodes/a", &record.Node{Name: "a"})
		if !x.Put("east/nodes/a", &record.Endpoint{Name: "a"}) || x.Has("east/nodes/a") {
			t.Error("the former node stayed, or went unsaid")
		}
		if x.Put("east/secrets/a", &record.Node{Name: "a"}) || x.Drop("east/secrets/a") {
			t.Error("a kind that nobody knows was filed")
		}
	})
}

func TestPoliciesKeepTheirRecord(t *testing.T) {
	r := newRecordTables()
	w := r.RecordWriter()
	const key = "east/policies/NetworkPolicy/shop/a"
	put := func(spec string) (changed bool) {
		w.Write(func(x RecordTxn) {
			changed = x.Put(key, &record.Policy{PolicyKind: "NetworkPolicy", Namespace: "shop", Name: "a", Spec: []byte(spec)})
		})
		return changed
	}
	if !put("{}") || put("{}") || !put(`{"podSelector":{}}`) {
		t.Error("a policy changes by its record")
	}
	if p, ok := r.Policies.Get(key); !ok || string(p.Spec) != `{"podSelector":{}}` {
		t.Errorf("policy = %+v", p)
	}
}

func TestRecordsHaveOneWriter(t *testing.T) {
	r := newRecordTables()
	r.RecordWriter()
	defer func() {
		if recover() == nil {
			t.Error("a second writer was handed out")
		}
	}()
	r.RecordWriter()
}

// Beside a writer a follower sees whole batches only, and readers get along.
func TestABatchIsSeenAsAWhole(t *testing.T) {
	r := newRecordTables()
	w := r.RecordWriter()
	const batches = 500
	addr := netip.MustParseAddr("10.0.0.1")
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := range uint32(batches) {
			w.Write(func(x RecordTxn) {
				for _, name := range []string{"a", "b"} {
					x.Put("east/endpoints/shop/"+name, &record.Endpoint{Namespace: "shop", Name: name, Identity: n + 1, Addresses: []netip.Addr{addr}})
				}
			})
		}
	}()
	f := r.FollowRecords()
	seen := map[string]uint32{}
	Visit(f, r.Endpoints, func(c Change[*record.Endpoint]) { seen[c.Key] = c.Now.Identity })
	for seen["east/endpoints/shop/a"] < batches {
		<-f.Watch()
		f.Next()
		if a, b := seen["east/endpoints/shop/a"], seen["east/endpoints/shop/b"]; a != b {
			t.Fatalf("half a batch is visible: %d and %d", a, b)
		}
		if at := r.EndpointsAt(addr); len(at) == 1 || len(at) == 2 && at[0].Identity != at[1].Identity {
			t.Fatalf("half a batch is found by address: %v", at)
		}
	}
	<-written
}
