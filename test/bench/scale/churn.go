// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// rates of change, of each cluster and second. They are those that Cilium's own scale test uses.
type rates struct{ nodes, identities, endpoints float64 }

var scaleTestRates = rates{nodes: 0.1, identities: 0.2, endpoints: 1}

// churn changes clusters at random, and moves the probe. Clusters are for one goroutine at a time, so all goes through
// its lock.
type churn struct {
	rig *rig

	mu    sync.Mutex
	rand  *rand.Rand
	count int
}

func newChurn(r *rig) *churn { return &churn{rig: r, rand: rand.New(rand.NewPCG(1, 2))} }

// start begins to change clusters; the function it returns ends that.
func (c *churn) start(r rates) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx, r)
	}()
	return func() { cancel(); <-done }
}

func (c *churn) run(ctx context.Context, r rates) {
	const tick = 20 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var nodes, identities, endpoints float64 // due
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		due := now.Sub(last).Seconds() * float64(len(c.rig.mesh.Clusters))
		last = now
		nodes, identities, endpoints = nodes+due*r.nodes, identities+due*r.identities, endpoints+due*r.endpoints
		for ; nodes >= 1; nodes-- {
			c.do(func(cl *workload.Cluster) workload.Change { return cl.Node() })
		}
		for ; identities >= 1; identities-- {
			c.do(func(cl *workload.Cluster) workload.Change { return cl.Identity() })
		}
		for ; endpoints >= 1; endpoints-- {
			c.do(func(cl *workload.Cluster) workload.Change { return cl.Endpoint(c.rand) })
		}
	}
}

func (c *churn) do(f func(*workload.Cluster) workload.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.rig.mesh.Clusters[c.rand.IntN(len(c.rig.mesh.Clusters))]
	c.publish(f(cl))
	c.count++
}

func (c *churn) publish(ch workload.Change) {
	c.rig.mesh.Happened(ch)
	c.rig.writers[ch.Cluster].publisher.Apply(ch.Delta)
}

// changes made so far, those of the probe not among them.
func (c *churn) changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// probe makes the first cluster move a pod, and waits until the kernel knows. The clock starts when the cluster's
// publisher is given the change.
func (c *churn) probe(within time.Duration) (time.Duration, error) {
	took, _, err := c.move(within)
	return took, err
}

// move is probe that also gives the address that nobody has any more.
func (c *churn) move(within time.Duration) (took time.Duration, from netip.Addr, err error) {
	c.mu.Lock()
	ch, to, from := c.rig.mesh.Clusters[0].Probe()
	start := time.Now()
	c.publish(ch)
	c.mu.Unlock()
	seen, err := c.rig.kernel.awaitAddress(to, ch.Want[to], within)
	if err != nil {
		return 0, from, fmt.Errorf("probe: %w", err)
	}
	return seen.Sub(start), from, nil
}

// probes for a while, pausing between them.
func (c *churn) probes(during, pause time.Duration) ([]time.Duration, error) {
	var out []time.Duration
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(pause) {
		took, err := c.probe(limit)
		if err != nil {
			return out, err
		}
		out = append(out, took)
	}
	return out, nil
}
