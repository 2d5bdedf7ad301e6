// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func TestAgentFollowsTheHub(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1), put("east", "b", 1), put("west", "c", 1))
	h.SetClusters(synced("east", "west"))
	r := serve(t, h, nil)
	a := follow(t, "n1", r.address)
	eventually(t, "snapshot", a.upToDate(t, h))
	apply(t, h, put("east", "a", 2), gone("east", "b"), put("west", "d", 1))
	eventually(t, "delta", a.upToDate(t, h))
	if received, _, starts := a.counts(); received != 6 || starts != 1 {
		t.Errorf("received %d changes in %d snapshots", received, starts)
	}
	at := h.At()
	apply(t, h, put("east", "a", 2), gone("east", "never"))
	if !proto.Equal(at, h.At()) {
		t.Error("changes that change nothing made a revision")
	}
	subs := r.server.Subscribers()
	if len(subs) != 1 || subs[0].Node != "n1" || subs[0].Address == "" {
		t.Errorf("subscribers %+v", subs)
	}
	if st := a.client.Status(); !st.Connected || st.LastError != nil || st.LastBatch.IsZero() {
		t.Errorf("status %+v", st)
	}
}

func TestAgentResumesWhereItLeftOff(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1), put("east", "b", 1), put("east", "c", 1))
	h.SetClusters(synced("east"))
	first := serve(t, h, nil)
	second := serve(t, h, nil)
	a := follow(t, "n1", first.address, second.address)
	eventually(t, "snapshot", a.upToDate(t, h))
	first.stop()
	second.stop()
	eventually(t, "disconnected", func() bool { return !a.client.Status().Connected })
	apply(t, h, put("east", "a", 2), put("east", "a", 3), gone("east", "b"))
	third := serve(t, h, nil)
	b := follow(t, "n2", third.address)
	eventually(t, "a fresh agent", b.upToDate(t, h))

	// The first agent comes back to a relay process of the same epoch.
	c := &agent{state: a.state}
	c.client = NewClient(ClientConfig{Targets: []string{third.address}, Node: "n1", Token: a.client.cfg.Token})
	a.stop()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.client.Run(ctx, c.resume, c.take) }()
	defer func() { cancel(); <-done }()
	eventually(t, "resumed", c.upToDate(t, h))
	if received, effects, starts := c.counts(); received != 2 || effects != 2 || starts != 0 {
		t.Errorf("resume sent %d changes (%d effective) in %d snapshots; want the newest of two keys", received, effects, starts)
	}
}

func TestNewEpochSendsASnapshotThatChangesNothing(t *testing.T) {
	t.Parallel()
	h1, h2 := NewHub(0), NewHub(0)
	for _, h := range []*Hub{h1, h2} {
		apply(t, h, put("east", "a", 1), put("west", "b", 1))
		h.SetClusters(synced("east", "west"))
	}
	apply(t, h2, gone("west", "b"))
	r1 := serve(t, h1, nil)
	r2 := serve(t, h2, nil)
	a := follow(t, "n1", r1.address, r2.address)
	eventually(t, "in one of them", func() bool { return a.client.Status().Connected })
	r1.stop()
	eventually(t, "at the other", a.upToDate(t, h2))
	if _, effects, _ := a.counts(); effects > 3 {
		t.Errorf("%d effective changes; the records were the same but one", effects)
	}
}

func TestEmptyHubSweepsNothing(t *testing.T) {
	t.Parallel()
	old := NewHub(0)
	apply(t, old, put("east", "a", 1), put("east", "b", 1), put("west", "c", 1))
	old.SetClusters(synced("east", "west"))
	s := newMirror()
	for _, b := range rest(t, old, &cursor{}) {
		s.Apply(b)
	}

	// The operator restarts: nothing is known yet, then one cluster after the other.
	h := NewHub(0)
	at := h.resume(s.Resume())
	step := func() (changed []*relayv1.Change) {
		for _, b := range rest(t, h, &at) {
			changed = append(changed, s.Apply(b)...)
		}
		return changed
	}
	if got := step(); len(got) > 0 || s.Len() != 3 {
		t.Fatalf("an empty snapshot of unknown clusters changed %v", got)
	}
	if s.Saved() != nil {
		t.Error("would resume although what is held was never judged")
	}
	apply(t, h, put("east", "a", 1))
	if got := step(); len(got) > 0 {
		t.Fatalf("known record changed %v", got)
	}
	h.SetClusters([]*relayv1.ClusterState{{Name: "east", Synced: true}, {Name: "west"}})
	if got := step(); len(got) != 1 || got[0].GetKey() != gone("east", "b").GetKey() || got[0].GetRecord() != nil {
		t.Fatalf("east became synced without b: %v", got)
	}
	if s.Len() != 2 {
		t.Error("west is not synced and must stay")
	}
	h.SetClusters(synced("east", "west"))
	if got := step(); len(got) != 1 || s.Len() != 1 {
		t.Fatalf("west became synced and empty: %v", got)
	}
	if !proto.Equal(s.Resume(), h.At()) {
		t.Errorf("resume %v instead of %v", s.Resume(), h.At())
	}
}

// A record that was put is there to be looked up, however long ago; only removals are forgotten.
func TestForgottenRemovalsMeanASnapshot(t *testing.T) {
	t.Parallel()
	h := NewHub(10)
	for i := range 20 {
		apply(t, h, put("east", fmt.Sprintf("p%d", i), 1))
	}
	at := h.At()
	for i := range 1000 {
		apply(t, h, put("east", "p0", 2+i))
	}
	for i := range 10 {
		apply(t, h, gone("east", fmt.Sprintf("p%d", 10+i)))
	}
	c := h.resume(at)
	if got := rest(t, h, &c); len(got) != 1 || got[0].GetSnapshotStart() || len(got[0].GetChanges()) != 11 {
		t.Errorf("a thousand changes of one key and ten removals: %v, want the newest of each alone", got)
	}
	c = h.resume(at)
	apply(t, h, gone("east", "p1"))
	if !h.next(&c).behind {
		t.Error("a removal was forgotten that the stream had not sent")
	}
	if c = h.resume(at); len(c.seen) > 0 {
		t.Error("resumed from before a forgotten removal")
	}
	if got := rest(t, h, &c); !got[0].GetSnapshotStart() || len(got[0].GetChanges()) != 9 {
		t.Errorf("a stream that fell behind got %v", got)
	}
	for i := range 100 {
		apply(t, h, put("east", "flaps", i), gone("east", "flaps"))
	}
	if len(h.entries) != 9+10 || h.order.removals() != 10 {
		t.Errorf("%d removals are remembered, with %d entries", h.order.removals(), len(h.entries))
	}
	future := h.At()
	future.Revision++
	if len(h.resume(future).seen) > 0 {
		t.Error("resumed in the future")
	}
}

func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	var changes []*relayv1.Change
	for i := range 2500 {
		changes = append(changes, put("east", fmt.Sprintf("p%d", i), 1))
	}
	fat := put("east", "fat", 1)
	fat.GetRecord().GetEndpoint().Node = strings.Repeat("n", 200<<10)
	for i := range 10 {
		c := proto.CloneOf(fat)
		c.Key += fmt.Sprint(i)
		changes = append(changes, c)
	}
	apply(t, h, changes...)
	h.SetClusters(synced("east"))
	check := func(batches []*relayv1.Batch, snapshot bool) {
		t.Helper()
		total := 0
		for i, b := range batches {
			total += len(b.GetChanges())
			last := i == len(batches)-1
			if len(b.GetChanges()) > maxBatchChanges || proto.Size(b) > maxBatchBytes+4096 {
				t.Errorf("batch %d has %d changes, %d bytes", i, len(b.GetChanges()), proto.Size(b))
			}
			if b.GetSnapshotStart() != (snapshot && i == 0) || b.GetSnapshotEnd() != (snapshot && last) {
				t.Errorf("batch %d of %d: start %v end %v", i, len(batches), b.GetSnapshotStart(), b.GetSnapshotEnd())
			}
			if snapshot && !last && b.GetAt() != nil {
				t.Error("a resume point in the middle of a snapshot")
			}
			if (len(b.GetClusters()) > 0) != last {
				t.Error("clusters' states belong into the last batch: they say that the records are complete")
			}
		}
		if total != len(changes) {
			t.Errorf("%d changes", total)
		}
	}
	check(rest(t, h, &cursor{}), true)

	start := h.resume(&relayv1.ResumePoint{Epoch: h.epoch})
	delta := rest(t, h, &start)
	check(delta, false)
	// Every batch of a delta is a place to resume: going on from any of them gives the rest, no less.
	for i, b := range delta {
		c := h.resume(b.GetAt())
		got, want := 0, 0
		for _, later := range rest(t, h, &c) {
			got += len(later.GetChanges())
		}
		for _, later := range delta[i+1:] {
			want += len(later.GetChanges())
		}
		if got != want {
			t.Errorf("resume after batch %d gives %d changes instead of %d", i, got, want)
		}
	}
}

// A stream wakes only for what it has to send.
func TestNothingNewWakesNobody(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1))
	h.SetClusters(synced("east"))
	c := cursor{}
	rest(t, h, &c)
	wait := h.next(&c).wait
	apply(t, h)
	apply(t, h, put("east", "a", 1), gone("east", "never"))
	h.SetClusters(synced("east"))
	select {
	case <-wait:
		t.Error("changes that change nothing woke the streams")
	default:
	}
	apply(t, h, gone("east", "a"))
	<-wait
	if n := h.next(&c); len(n.batch.entries) != 1 {
		t.Errorf("a removal was sent as %v", n.batch)
	}
	wait = h.next(&c).wait
	apply(t, h, gone("east", "a"))
	select {
	case <-wait:
		t.Error("a second removal woke the streams")
	default:
	}
}

// An agent that takes nothing must cost neither memory nor the others' time, and be well afterwards.
func TestSlowAgentHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := NewHub(1000)
	h.SetClusters(synced("east"))
	r := serve(t, h, nil)
	blocked, release := make(chan struct{}), make(chan struct{})
	slow := &agent{state: newMirror()}
	slow.client = NewClient(ClientConfig{Targets: []string{r.address}, Node: "slow", Token: func(context.Context) (string, error) { return "token-of-slow", nil }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var once sync.Once
	go func() {
		done <- slow.client.Run(ctx, slow.resume, func(b *relayv1.Batch) error {
			once.Do(func() { close(blocked); <-release })
			return slow.take(b)
		})
	}()
	defer func() { cancel(); <-done }()
	<-blocked

	fast := follow(t, "fast", r.address)
	big := put("east", "x", 0)
	big.GetRecord().GetEndpoint().NamedPorts = map[string]uint32{strings.Repeat("p", 4000): 1}
	for round := range 50 { // 10 MB of changes of 50 keys: far more than flow control lets through
		for i := range 50 {
			c := proto.CloneOf(big)
			c.Key = put("east", fmt.Sprintf("p%d", i), 0).GetKey()
			c.Record.GetEndpoint().Node = fmt.Sprintf("node-%d", round)
			apply(t, h, c)
		}
		eventually(t, "the fast agent keeps up", func() bool { return proto.Equal(fast.appliedAt(), h.At()) })
	}
	close(release)
	eventually(t, "the slow agent catches up", slow.upToDate(t, h))
	if received, _, _ := slow.counts(); received >= 2500 {
		t.Errorf("the slow agent was sent all %d changes", received)
	}
}

func (a *agent) appliedAt() *relayv1.ResumePoint {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state.Applied()
}

func TestClientTriesTheNextRelay(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1))
	h.SetClusters(synced("east"))
	r := serve(t, h, nil)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts there
	if err != nil {
		t.Fatal(err)
	}
	_ = silent.Close()
	a := follow(t, "n1", silent.Addr().String(), "not a target", r.address)
	eventually(t, "found the good one", a.upToDate(t, h))
	if st := a.client.Status(); st.Target != r.address {
		t.Errorf("status %+v", st)
	}
}

func TestAnErrorOfTheHandlerMeansTryingAgain(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1))
	h.SetClusters(synced("east"))
	r := serve(t, h, nil)
	a := &agent{state: newMirror()}
	c := NewClient(ClientConfig{Targets: []string{r.address}, Node: "n1", Token: func(context.Context) (string, error) { return "token-of-n1", nil }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	failures := 2
	go func() {
		done <- c.Run(ctx, a.resume, func(b *relayv1.Batch) error {
			if failures--; failures >= 0 {
				return errors.New("disk full")
			}
			return a.take(b)
		})
	}()
	eventually(t, "taken at last", a.upToDate(t, h))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
}
