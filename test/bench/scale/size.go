// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// plan of a run at one size.
type plan struct {
	clusters int
	shape    workload.Shape
	seconds  time.Duration // of churn
}

// mapSizes makes room for what a mesh needs beyond the maps' own sizes.
func mapSizes(m *workload.Mesh) map[string]uint32 {
	s := m.Size()
	sizes := map[string]uint32{}
	if need := uint32(s.Endpoints+2*s.Nodes) * 5 / 4; need > 262144 {
		sizes[bpf.MapIpcache4] = need
	}
	return sizes
}

// measureSize goes through one size, from nothing to a verified end.
func measureSize(dir string, p plan, say func(string, ...any)) (s Size, err error) {
	mesh, err := workload.NewMesh(p.clusters, p.shape, workload.Shape{Nodes: 100, Identities: 100, Endpoints: 1000})
	if err != nil {
		return s, err
	}
	all := mesh.Size()
	s = Size{Clusters: p.clusters, Nodes: all.Nodes, Identities: all.Identities, Endpoints: all.Endpoints, Records: mesh.Records(), Load: load()}
	say("%d nodes, %d identities, %d endpoints: publishing", s.Nodes, s.Identities, s.Endpoints)
	r, err := newRig(dir, mesh, mapSizes(mesh), say)
	defer r.close()
	if err != nil {
		return s, err
	}
	c := newChurn(r)
	for _, part := range []struct {
		name   string
		needed bool // by what comes after
		run    func() error
	}{
		{"operator", true, func() error { return s.measureOperator(r) }},
		{"agent", true, func() error { return s.measureBootstrap(r) }},
		{"one change at a time", false, func() (err error) {
			if s.Quiet, err = r.series(30, time.Minute, func(int) (time.Duration, error) { return c.probe(limit) }); err != nil {
				return err
			}
			s.Quiet.Disk, err = r.diskOfOne(c)
			return err
		}},
		{"churn", false, func() error { return s.measureChurn(r, c, p.seconds) }},
		{"restarts under churn", true, func() error { return s.measureRestarts(r, c) }},
		{"slow and stuck readers under churn", false, func() error { return s.measureReaders(r, c, p.seconds) }},
		{"nothing is missing", false, r.awaitProgrammed},
	} {
		say("%s", part.name)
		err := part.run()
		if err == nil {
			continue
		}
		say("%s failed: %v", part.name, err)
		s.Failed = append(s.Failed, fmt.Sprintf("%s: %v", part.name, err))
		if part.needed {
			break
		}
	}
	return s, nil
}

func (s *Size) measureOperator(r *rig) error {
	start := time.Now()
	if err := r.startOperator(); err != nil {
		return err
	}
	if err := r.awaitOperator(s.Records); err != nil {
		return err
	}
	s.OperatorCatchUp = ms(time.Since(start))
	used, err := r.operator.CPU()
	s.OperatorCPU = ms(used)
	return err
}

func (s *Size) measureBootstrap(r *rig) error {
	if err := r.startAgent(); err != nil {
		return err
	}
	before, err := r.agent.CPU() // loading programs
	if err != nil {
		return err
	}
	if err := r.awaitProgrammed(); err != nil {
		return err
	}
	end := time.Now()
	used, err := r.agent.CPU()
	if err != nil {
		return err
	}
	m, err := r.read()
	if err != nil {
		return err
	}
	s.Bootstrap, s.BootstrapCPU, s.BootstrapWire = ms(end.Sub(m.state.FirstDial)), ms(used-before), m.state.Received
	r.say("agent: programmed after %.1f s, %.1f s of its CPU time", s.Bootstrap/1000, s.BootstrapCPU/1000)
	if err := r.agent.Idle(limit); err != nil {
		return err
	}
	time.Sleep(settled)
	return s.measureMemory(r)
}

func (s *Size) measureMemory(r *rig) error {
	m, err := r.read()
	if err != nil {
		return err
	}
	s.AgentResident, s.AgentPeak = m.agentMem.Resident, m.agentMem.Peak
	s.OperatorResident, s.OperatorPeak = m.operatorMem.Resident, m.operatorMem.Peak
	var h process.Heap
	if err := r.agent.Call("heap", true, &h); err != nil {
		return err
	}
	s.AgentHeap = int64(h.Live)
	if err := r.operator.Call("heap", true, &h); err != nil {
		return err
	}
	s.OperatorHeap = int64(h.Live)
	kernel, err := r.kernel.memory()
	s.KernelMaps = int64(kernel)
	s.DiskOfSnapshot = diskOf(filepath.Join(r.dir, "agent"))
	return err
}

// diskOf sums the files below a folder.
func diskOf(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // a file that was just replaced
		}
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

func (s *Size) measureChurn(r *rig, c *churn, during time.Duration) error {
	stop := c.start(scaleTestRates)
	defer stop()
	if err := r.agent.ResetPeak(); err != nil {
		return err
	}
	before, err := r.read()
	if err != nil {
		return err
	}
	made := c.changes()
	latency, err := c.probes(during, 50*time.Millisecond)
	if err != nil {
		return err
	}
	after, err := r.read()
	if err != nil {
		return err
	}
	seconds := after.at.Sub(before.at).Seconds()
	changes := float64(c.changes()-made) + float64(len(latency))
	per := func(n int64) int64 { return int64(float64(n) / seconds) }
	disk := after.agentIO.Disk - before.agentIO.Disk
	s.Churn = Churn{
		Seconds: seconds, ChangesPerSecond: changes / seconds, Latency: quantiles(latency),
		AgentCPU:      (after.agent - before.agent).Seconds() / seconds,
		OperatorCPU:   (after.operator - before.operator).Seconds() / seconds,
		StoreCPU:      (after.store - before.store).Seconds() / seconds,
		WirePerSecond: per(after.state.Received - before.state.Received),
		DiskPerSecond: per(disk), DiskPerChange: int64(float64(disk) / changes),
		GarbagePerSecond: per(int64(after.agentHeap.Allocated - before.agentHeap.Allocated)),
		AgentPeak:        after.agentMem.Peak, Reconnects: after.state.Dials - before.state.Dials, Problems: after.state.Problems,
	}
	return nil
}

func (s *Size) measureReaders(r *rig, c *churn, during time.Duration) error {
	s.Readers = Readers{Slow: 2, Stuck: 5}
	var h process.Heap
	if err := r.operator.Call("heap", true, &h); err != nil {
		return err
	}
	m, err := r.operator.Memory()
	if err != nil {
		return err
	}
	s.Readers.OperatorBefore, s.Readers.HeapBefore = m.Resident, int64(h.Live)
	readers, err := process.Start(roles.Readers, r.dir, roles.ReadersConfig{Relay: r.relay, Slow: s.Readers.Slow, Stuck: s.Readers.Stuck}, 0)
	if err != nil {
		return err
	}
	defer readers.Stop()
	stop := c.start(scaleTestRates)
	latency, err := c.probes(during, 50*time.Millisecond)
	stop()
	if err != nil {
		return err
	}
	s.Readers.Latency = quantiles(latency)
	if err := r.operator.Call("heap", true, &h); err != nil {
		return err
	}
	if m, err = r.operator.Memory(); err != nil {
		return err
	}
	s.Readers.OperatorAfter, s.Readers.HeapAfter = m.Resident, int64(h.Live)
	return nil
}
