// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"maps"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func identity(number uint32) *relayv1.Change {
	rec := &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Identity{Identity: &recordv1.Identity{Id: number}}}
	key, err := record.Key(rec)
	if err != nil {
		panic(err)
	}
	return &relayv1.Change{Key: key, Record: rec}
}

func endpointOf(name string, number uint32) *relayv1.Change {
	c := put("east", name, 0)
	c.GetRecord().GetEndpoint().Identity = number
	return c
}

// An operator that puts identities before their endpoints and removes them after is followed by agents that never hold an
// endpoint without its identity, in snapshots and deltas, however small the batches and whatever changes between them.
func TestNoEndpointWithoutItsIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := smallHub()
		identities, endpoints := map[uint32]bool{}, map[string]uint32{}
		state, at := newMirror(), cursor{}
		apply := func(c *relayv1.Change) {
			if err := h.Apply([]*relayv1.Change{c}); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put endpoint": func(rt *rapid.T) {
				number := uint32(1<<16 | rapid.IntRange(256, 264).Draw(rt, "number"))
				name := fmt.Sprintf("p%d", rapid.IntRange(0, 20).Draw(rt, "pod"))
				if !identities[number] {
					identities[number] = true
					apply(identity(number))
				}
				endpoints[name] = number
				apply(endpointOf(name, number))
			},
			"remove endpoint": func(rt *rapid.T) {
				name := fmt.Sprintf("p%d", rapid.IntRange(0, 20).Draw(rt, "pod"))
				delete(endpoints, name)
				apply(gone("east", name))
			},
			"remove identities out of use": func(*rapid.T) {
				used := map[uint32]bool{}
				for _, number := range endpoints {
					used[number] = true
				}
				for number := range maps.Clone(identities) {
					if !used[number] {
						delete(identities, number)
						apply(&relayv1.Change{Key: identity(number).GetKey()})
					}
				}
			},
			"one batch": func(*rapid.T) {
				b, _ := one(t, h, &at)
				state.Apply(b)
			},
			"another stream": func(*rapid.T) {
				if state.Resume() == nil {
					state = newMirror() // what it held of half a snapshot is swept at the end of a whole one, not in order
				}
				at = h.resume(state.Resume())
			},
			"": func(rt *rapid.T) {
				for key, rec := range state.All() {
					if e := rec.GetEndpoint(); e != nil && state.Get(identity(e.GetIdentity()).GetKey()) == nil {
						rt.Fatalf("%s is there without its identity %d", key, e.GetIdentity())
					}
				}
			},
		})
		h.SetClusters(synced("east"))
		for _, b := range rest(t, h, &at) {
			state.Apply(b)
		}
		if !equal(maps.Collect(state.All()), contents(t, h)) || state.Len() != len(identities)+len(endpoints) {
			rt.Fatalf("agent holds %d records instead of %d identities and %d endpoints", state.Len(), len(identities), len(endpoints))
		}
	})
}

// The changelog is what a sorted list would be.
func TestChangelogEqualsASortedList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var l changelog
		var list []uint64
		revision := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(rt, "n") {
					revision += uint64(rapid.IntRange(1, 3).Draw(rt, "step"))
					l.add(&entry{revision: revision})
					list = append(list, revision)
				}
			},
			"drop": func(rt *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(rt, "n") {
					r := uint64(rapid.IntRange(0, int(revision)+1).Draw(rt, "revision"))
					l.drop(r)
					for i, have := range list {
						if have == r {
							list = append(list[:i], list[i+1:]...)
							break
						}
					}
				}
			},
			"": func(rt *rapid.T) {
				from := uint64(rapid.IntRange(0, int(revision)+1).Draw(rt, "from"))
				var got, want []uint64
				for _, s := range l.after(from) {
					if s.entry != nil {
						got = append(got, s.entry.revision)
					}
				}
				for _, r := range list {
					if r > from {
						want = append(want, r)
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(want) || l.len() != len(list) {
					rt.Fatalf("after %d: %v instead of %v", from, got, want)
				}
				if len(list) > 0 && (l.oldest() != list[0] || l.newest() != list[len(list)-1]) {
					rt.Fatalf("from %d to %d instead of %v", l.oldest(), l.newest(), list)
				}
				if len(l.slots) > 2*len(list)+2*fewSlots {
					rt.Fatalf("%d slots for %d entries", len(l.slots), len(list))
				}
			},
		})
	})
}

// A member that rewrites its records faster than a stream takes them delays policies and removals, but not for ever.
func TestAFloodKeepsNothingFromAgents(t *testing.T) {
	h := NewHub(0)
	h.limits.changes = 10
	rec := &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}}}
	key, err := record.Key(rec)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, put("east", "revoked", 0))
	h.SetClusters(synced("east", "west"))
	c := cursor{}
	rest(t, h, &c)
	apply(t, h, &relayv1.Change{Key: key, Record: rec}, gone("east", "revoked"))
	var policy, removal int
	for n := 1; n <= 1000 && (policy == 0 || removal == 0); n++ {
		for i := range 11 { // a member rewrites eleven of its endpoints in the time of one batch
			apply(t, h, put("west", fmt.Sprint("p", i), n))
		}
		b, _ := one(t, h, &c)
		for _, ch := range b.GetChanges() {
			if ch.GetKey() == key {
				policy = n
			}
			if ch.GetKey() == "east/endpoints/default/revoked" {
				removal = n
			}
		}
	}
	if policy == 0 || removal == 0 {
		t.Fatalf("after 1000 batches: policy in batch %d, removal in batch %d (0: never)", policy, removal)
	}
}

// Nor does it keep an agent that starts without its snapshot, which mentions every record that was there all along.
func TestASnapshotEndsUnderAFlood(t *testing.T) {
	h := NewHub(0)
	h.limits.changes = 10
	var calm []string
	for i := range 50 {
		c := put("east", fmt.Sprint("calm", i), 0)
		calm = append(calm, c.GetKey())
		apply(t, h, c)
	}
	h.SetClusters(synced("east", "west"))
	version := 0
	flood := func() { // a member rewrites eleven of its endpoints in the time of one batch, and some come and go
		version++
		for i := range 11 {
			apply(t, h, put("west", fmt.Sprint("p", i), version))
		}
		apply(t, h, put("west", fmt.Sprint("short-lived", version%7), version), gone("west", fmt.Sprint("short-lived", (version+3)%7)))
	}
	for range 20 {
		flood()
	}
	s, c, held := NewState(), cursor{}, map[string]*relayv1.Change{"east/endpoints/default/stale": gone("east", "stale")}
	batches := 0
	for ; !s.Whole(); batches++ {
		if batches > 100 {
			t.Fatal("the snapshot doesn't end")
		}
		flood()
		b, _ := one(t, h, &c)
		for _, change := range s.Apply(b, maps.Keys(held)) {
			if held[change.GetKey()] = change; change.GetRecord() == nil {
				delete(held, change.GetKey())
			}
		}
	}
	for _, key := range calm {
		if held[key] == nil {
			t.Errorf("%s is missing", key)
		}
	}
	if held["east/endpoints/default/stale"] != nil {
		t.Error("what is gone is still held")
	}
	// What was rewritten meanwhile follows, once there is time for it.
	for _, b := range rest(t, h, &c) {
		for _, change := range s.Apply(b, maps.Keys(held)) {
			if held[change.GetKey()] = change; change.GetRecord() == nil {
				delete(held, change.GetKey())
			}
		}
	}
	for key, e := range h.entries {
		if have := held[key]; e.removed == (have != nil) || have != nil && !proto.Equal(have, decodeEntry(t, e)) {
			t.Errorf("%s: the agent has %v", key, have)
		}
	}
	t.Logf("the snapshot took %d batches of %d", batches, h.limits.changes)
}

func decodeEntry(t *testing.T, e *entry) *relayv1.Change {
	t.Helper()
	return decode(t, &wireBatch{head: &relayv1.Batch{}, entries: []*entry{e}}).GetChanges()[0]
}
