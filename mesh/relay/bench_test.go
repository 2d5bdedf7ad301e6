// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// arrivals counts what all agents received and says when the awaited number is reached.
type arrivals struct {
	received, awaited atomic.Int64
	reached           chan struct{}
}

func (a *arrivals) add(n int) {
	if n > 0 && a.received.Add(int64(n)) == a.awaited.Load() {
		a.reached <- struct{}{}
	}
}

// subscribe connects n agents over real connections; their decoding is part of the cost.
func subscribe(b *testing.B, address string, n int, arrived *arrivals) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, n)
	for i := range n {
		node := fmt.Sprintf("n%d", i)
		c := NewClient(ClientConfig{
			Targets: []string{address}, Node: node, Logger: slog.New(slog.DiscardHandler),
			Token: func(context.Context) (string, error) { return "token-of-" + node, nil },
		})
		go func() {
			defer func() { done <- struct{}{} }()
			_ = c.Run(ctx, nil, func(batch *relayv1.Batch) error {
				arrived.add(len(batch.GetChanges()))
				return nil
			})
		}()
	}
	b.Cleanup(func() {
		cancel()
		for range n {
			<-done
		}
	})
}

// BenchmarkFanOut: one change at a time to all agents, each waited for. ns/op is the time until the last agent has it.
func BenchmarkFanOut(b *testing.B) {
	for _, agents := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprintf("agents=%d", agents), func(b *testing.B) {
			h := NewHub(0)
			h.SetClusters(synced("east"))
			r := serve(b, h, func(c *ServerConfig) { c.Logger = slog.New(slog.DiscardHandler) })
			arrived := &arrivals{reached: make(chan struct{}, 1)}
			subscribe(b, r.address, agents, arrived)
			eventually(b, "all agents subscribed", func() bool { return len(r.server.Subscribers()) == agents })
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				arrived.awaited.Store(int64((i + 1) * agents))
				apply(b, h, put("east", "p", i))
				<-arrived.reached
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*agents), "ns/delivery")
		})
	}
}

// BenchmarkSnapshot: agents that connect and receive everything.
func BenchmarkSnapshot(b *testing.B) {
	for _, records := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			h := NewHub(0)
			var changes []*relayv1.Change
			for i := range records {
				changes = append(changes, put("east", fmt.Sprintf("pod-%d", i), 1))
			}
			apply(b, h, changes...)
			h.SetClusters(synced("east"))
			r := serve(b, h, func(c *ServerConfig) { c.Logger = slog.New(slog.DiscardHandler) })
			b.ReportAllocs()
			for b.Loop() {
				c := NewClient(ClientConfig{
					Targets: []string{r.address}, Node: "n", Logger: slog.New(slog.DiscardHandler),
					Token: func(context.Context) (string, error) { return "token-of-n", nil },
				})
				got := 0
				_, _ = c.attempt(context.Background(), nil, func(batch *relayv1.Batch) error {
					if got += len(batch.GetChanges()); batch.GetSnapshotEnd() {
						return context.Canceled
					}
					return nil
				})
				if got != records {
					b.Fatalf("received %d of %d", got, records)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*records), "ns/record")
		})
	}
}

// BenchmarkHubApply: the operator's cost of a change, with no agents.
func BenchmarkHubApply(b *testing.B) {
	h := NewHub(0)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		apply(b, h, put("east", fmt.Sprintf("pod-%d", i%1000), i))
		i++
	}
}

// filled is a hub that holds that many endpoints.
func filled(b *testing.B, records int) *Hub {
	b.Helper()
	h := NewHub(0)
	var changes []*relayv1.Change
	for i := range records {
		changes = append(changes, put("east", fmt.Sprintf("pod-%d", i), 1))
	}
	apply(b, h, changes...)
	h.SetClusters(synced("east"))
	return h
}

// BenchmarkFanOutOfMany: one change at a time to all agents while the hub holds 250,000 records.
func BenchmarkFanOutOfMany(b *testing.B) {
	const records, agents = 250_000, 10
	h := filled(b, records)
	r := serve(b, h, func(c *ServerConfig) { c.Logger = slog.New(slog.DiscardHandler) })
	arrived := &arrivals{reached: make(chan struct{}, 1)}
	arrived.awaited.Store(records * agents)
	subscribe(b, r.address, agents, arrived)
	<-arrived.reached
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		arrived.awaited.Store(int64(records*agents + (i+1)*agents))
		apply(b, h, put("east", "pod-7", i+2))
		<-arrived.reached
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*agents), "ns/delivery")
}

// BenchmarkSlowStreams: agents that take the first batch of a snapshot and then nothing, while every record changes once.
// What the hub and they hold beyond the hub alone is what slow agents cost.
func BenchmarkSlowStreams(b *testing.B) {
	const records, agents = 100_000, 10
	live := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		h := filled(b, records)
		base := live()
		l := NewServer(h, ServerConfig{Authenticate: authenticate, Snapshots: agents, Logger: slog.New(slog.DiscardHandler)})
		release := make(chan struct{})
		var streams sync.WaitGroup
		for range agents {
			stuck := newStuckStream(b.Context())
			stuck.release = release
			streams.Go(func() { stuck.subscribe(l) })
			<-stuck.blocked
		}
		for i := range records {
			apply(b, h, put("east", fmt.Sprintf("pod-%d", i), 2))
		}
		b.ReportMetric((live()-base)/agents/1e6, "MB/stream")
		close(release)
		streams.Wait()
	}
}
