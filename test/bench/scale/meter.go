// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
)

// reading is what the processes used up to a moment.
type reading struct {
	at                     time.Time
	agent, operator, store time.Duration // CPU
	agentHeap              process.Heap
	agentMem, operatorMem  process.Memory
	agentIO, operatorIO    process.IO
	state                  roles.AgentState
}

// read takes a reading. Asking the agent costs it some CPU time and memory, the same each time.
func (r *rig) read() (m reading, err error) {
	m.at = time.Now()
	do := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	do(func() error { return r.agent.Call("state", roles.None{}, &m.state) })
	do(func() error { return r.agent.Call("heap", false, &m.agentHeap) })
	do(func() (err error) { m.agent, err = r.agent.CPU(); return err })
	do(func() (err error) { m.operator, err = r.operator.CPU(); return err })
	do(func() (err error) { m.store, err = r.store.CPU(); return err })
	do(func() (err error) { m.agentMem, err = r.agent.Memory(); return err })
	do(func() (err error) { m.operatorMem, err = r.operator.Memory(); return err })
	do(func() (err error) { m.agentIO, err = r.agent.IO(); return err })
	do(func() (err error) { m.operatorIO, err = r.operator.IO(); return err })
	return m, err
}

// settled is more than the agent waits before it writes to the disk.
const settled = 3 * time.Second

// series measures single changes: change makes one and gives how long it took to be in the kernel. It ends after n, or when it took
// longer than most.
func (r *rig) series(n int, most time.Duration, change func(i int) (time.Duration, error)) (c Change, err error) {
	if err := r.agent.Idle(limit); err != nil {
		return c, err
	}
	time.Sleep(settled)
	before, err := r.read()
	if err != nil {
		return c, err
	}
	var latency, cpu []time.Duration
	for i := 0; i < n && (i < 3 || time.Since(before.at) < most); i++ {
		if err := r.agent.Idle(limit); err != nil {
			return c, err
		}
		used, err := r.agent.CPU()
		if err != nil {
			return c, err
		}
		took, err := change(i)
		if err != nil {
			return c, err
		}
		now, err := r.agent.CPU()
		if err != nil {
			return c, err
		}
		latency, cpu = append(latency, took), append(cpu, now-used)
	}
	if err := r.agent.Idle(limit); err != nil {
		return c, err
	}
	time.Sleep(settled)
	after, err := r.read()
	if err != nil {
		return c, err
	}
	made := int64(len(latency))
	return Change{
		Latency: quantiles(latency), CPU: quantiles(cpu), MeanCPU: ms(after.agent-before.agent) / float64(made),
		Garbage: int64(after.agentHeap.Allocated-before.agentHeap.Allocated) / made,
		Wire:    (after.state.Received - before.state.Received) / made,
	}, nil
}

// diskOfOne is what the agent writes to its disk for one change. Changes that follow each other at once share a write.
func (r *rig) diskOfOne(c *churn) (int64, error) {
	const changes = 4
	before, err := r.agent.IO()
	if err != nil {
		return 0, err
	}
	for range changes {
		if _, err := c.probe(limit); err != nil {
			return 0, err
		}
		time.Sleep(settled)
		if err := r.agent.Idle(limit); err != nil {
			return 0, err
		}
	}
	after, err := r.agent.IO()
	return (after.Disk - before.Disk) / changes, err
}
