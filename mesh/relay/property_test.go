// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// world is an operator's hub, one agent's state and the stream between them, driven by hand so that every interleaving
// can be drawn.
type world struct {
	t     *rapid.T
	tb    testing.TB
	hub   *Hub
	truth map[string]*relayv1.Change // what the operator knows; survives its restarts
	state *mirror

	connected bool
	at        cursor
	sending   []*relayv1.Batch // on their way
}

func newWorld(t *rapid.T, tb testing.TB) *world {
	w := &world{t: t, tb: tb, truth: map[string]*relayv1.Change{}, state: newMirror()}
	w.hub = smallHub()
	w.hub.SetClusters(w.clusters())
	return w
}

// smallHub sends few changes in a batch, so that streams break in the middle and records change under way.
func smallHub() *Hub {
	h := NewHub(20)
	h.limits.changes = 3
	return h
}

func (w *world) clusters() []*relayv1.ClusterState { return synced("east", "west") }

func (w *world) change() {
	var changes []*relayv1.Change
	for range rapid.IntRange(1, 6).Draw(w.t, "changes") {
		cluster := rapid.SampledFrom([]string{"east", "west"}).Draw(w.t, "cluster")
		name := fmt.Sprintf("p%d", rapid.IntRange(0, 9).Draw(w.t, "pod"))
		c := gone(cluster, name)
		delete(w.truth, c.GetKey())
		if rapid.Bool().Draw(w.t, "put") {
			c = put(cluster, name, rapid.IntRange(0, 3).Draw(w.t, "version"))
			w.truth[c.GetKey()] = c
		}
		changes = append(changes, c)
	}
	if err := w.hub.Apply(changes); err != nil {
		w.t.Fatal(err)
	}
}

// restart gives the operator a new hub. Between it and recovery the agent may connect at any moment.
func (w *world) restart() {
	w.disconnect()
	w.hub = smallHub()
}

// recover fills a restarted hub cluster by cluster, with the states as they come.
func (w *world) recover() {
	states := map[string]bool{}
	for _, s := range w.hub.clusters.states {
		states[s.GetName()] = s.GetSynced()
	}
	for _, cluster := range []string{"east", "west"} {
		if states[cluster] || !rapid.Bool().Draw(w.t, "cluster back") {
			continue
		}
		for key, c := range w.truth {
			if c.GetRecord().GetCluster() == cluster {
				if err := w.hub.Apply([]*relayv1.Change{w.truth[key]}); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		states[cluster] = true
	}
	var list []*relayv1.ClusterState
	for name, ok := range states {
		list = append(list, &relayv1.ClusterState{Name: name, Synced: ok})
	}
	w.hub.SetClusters(list)
}

func (w *world) connect() {
	if w.connected {
		return
	}
	w.connected, w.at = true, w.hub.resume(w.state.Resume())
}

func (w *world) disconnect() { w.connected, w.sending = false, nil }

// send puts some batches on their way: what they carry is decided now, and what is held may change before they arrive.
func (w *world) send() {
	if !w.connected {
		return
	}
	for range rapid.IntRange(1, 5).Draw(w.t, "sent") {
		b, more := one(w.tb, w.hub, &w.at)
		w.sending = append(w.sending, b)
		if !more {
			return
		}
	}
}

// receive lets the agent take some of what is on its way.
func (w *world) receive() {
	n := rapid.IntRange(0, len(w.sending)).Draw(w.t, "batches")
	for _, b := range w.sending[:n] {
		w.take(b)
	}
	w.sending = w.sending[n:]
}

// take checks that what Apply says it changed is what it changed.
func (w *world) take(b *relayv1.Batch) {
	shadow := maps.Collect(w.state.All())
	for _, c := range w.state.Apply(b) {
		if c.GetRecord() == nil {
			if shadow[c.GetKey()] == nil {
				w.t.Fatalf("%s is said to be gone and was not there", c.GetKey())
			}
			delete(shadow, c.GetKey())
		} else {
			shadow[c.GetKey()] = c.GetRecord()
		}
	}
	if !equal(shadow, maps.Collect(w.state.All())) {
		w.t.Fatal("what Apply said it changed is not what it changed")
	}
}

// agentRestart keeps what an agent saves on disk.
func (w *world) agentRestart() {
	w.disconnect()
	w.state = w.state.restart()
}

// settle lets everything recover and arrive.
func (w *world) settle() {
	for key, c := range w.truth {
		if err := w.hub.Apply([]*relayv1.Change{{Key: key, Record: c.GetRecord()}}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.hub.SetClusters(w.clusters())
	w.disconnect()
	w.connect()
	for _, b := range rest(w.tb, w.hub, &w.at) {
		w.take(b)
	}
}

// Whatever happens in whatever order, an agent ends up with what the operator knows, and never loses a record while the
// operator doesn't know for sure that it is gone.
func TestStateEqualsHubAfterAnything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, t)
		rt.Repeat(map[string]func(*rapid.T){
			"change":        func(*rapid.T) { w.change() },
			"connect":       func(*rapid.T) { w.connect() },
			"disconnect":    func(*rapid.T) { w.disconnect() },
			"send":          func(*rapid.T) { w.send() },
			"receive":       func(*rapid.T) { w.receive() },
			"restart":       func(*rapid.T) { w.restart() },
			"recover":       func(*rapid.T) { w.recover() },
			"agent restart": func(*rapid.T) { w.agentRestart() },
			"": func(rt *rapid.T) {
				if !w.state.Whole() && w.state.Resume() != nil {
					rt.Fatal("would resume from the middle of a snapshot")
				}
			},
		})
		w.settle()
		want := map[string]*recordv1.Record{}
		for key, c := range w.truth {
			want[key] = c.GetRecord()
		}
		if !equal(maps.Collect(w.state.All()), want) {
			rt.Fatalf("agent holds %d records, the operator knows %d", w.state.Len(), len(want))
		}
	})
}

// A record that is in the truth throughout must be in the agent throughout, through every restart and half snapshot.
func TestNothingKnownIsEverSwept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, t)
		keep := put("west", "keep", 1)
		w.truth[keep.GetKey()] = keep
		w.settle()
		rt.Repeat(map[string]func(*rapid.T){
			"change":        func(*rapid.T) { w.change() },
			"connect":       func(*rapid.T) { w.connect() },
			"disconnect":    func(*rapid.T) { w.disconnect() },
			"send":          func(*rapid.T) { w.send() },
			"receive":       func(*rapid.T) { w.receive() },
			"restart":       func(*rapid.T) { w.restart() },
			"recover":       func(*rapid.T) { w.recover() },
			"agent restart": func(*rapid.T) { w.agentRestart() },
			"": func(rt *rapid.T) {
				if w.state.Get(keep.GetKey()) == nil {
					rt.Fatal("swept a record that was never gone")
				}
			},
		})
	})
}
