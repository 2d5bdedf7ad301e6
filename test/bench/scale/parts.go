// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"time"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// part is something measured beside the sizes.
type part struct {
	name string
	run  func(dir string, say func(string, ...any)) error
}

// parts write what they measure into a result.
func parts(o options, into *Result) []part {
	return []part{
		{"services", func(dir string, say func(string, ...any)) (err error) {
			into.Services, err = measureServices(dir, say)
			return err
		}},
		{"policies", func(dir string, say func(string, ...any)) (err error) {
			into.Policies, err = measurePolicies(dir, say)
			return err
		}},
		{"status", func(_ string, say func(string, ...any)) (err error) {
			into.Status, err = measureStatus(say)
			return err
		}},
		{"million", func(dir string, say func(string, ...any)) (err error) {
			into.Million, err = measureMillion(dir, o.million, say)
			return err
		}},
	}
}

// home is the size of the reading cluster.
var home = workload.Shape{Nodes: 100, Identities: 100, Endpoints: 1000}

// ready starts everything and waits until the agent's kernel holds the mesh.
func ready(dir string, mesh *workload.Mesh, sizes map[string]uint32, say func(string, ...any)) (*rig, error) {
	r, err := newRig(dir, mesh, sizes, say)
	for _, step := range []func() error{
		func() error { return err }, r.startOperator, func() error { return r.awaitOperator(mesh.Records()) }, r.startAgent, r.awaitProgrammed,
		func() error { return r.agent.Idle(limit) },
	} {
		if err := step(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// local hands records to the operator as its own cluster's, and gives the relay's revision after.
func (r *rig) local(recs []*recordv1.Record, gone ...string) (revision uint64, err error) {
	if err := r.writeLocal("change", recs, gone...); err != nil {
		return 0, err
	}
	err = r.operator.Call("apply", filepath.Join(r.dir, "change"), &revision)
	return revision, err
}

// awaitApplied waits until the agent says that its kernel holds a revision, and gives the moment by the agent's clock,
// which is this machine's.
func (r *rig) awaitApplied(revision uint64) (at time.Time, err error) {
	var p roles.Progress
	if err := r.operator.Call("progress", roles.None{}, &p); err != nil {
		return at, err
	}
	err = r.agent.Call("applied", roles.Applied{Epoch: p.Epoch, Revision: revision, Limit: limit}, &at)
	return at, err
}

// programmed measures how long some work takes the agent.
func (r *rig) programmed(count int, work func() error) (p Programmed, err error) {
	if err := r.agent.Idle(limit); err != nil {
		return p, err
	}
	used, err := r.agent.CPU()
	if err != nil {
		return p, err
	}
	start := time.Now()
	if err := work(); err != nil {
		return p, err
	}
	took := time.Since(start)
	after, err := r.agent.CPU()
	return Programmed{Count: count, Time: ms(took), CPU: ms(after - used)}, err
}

func measureMillion(dir string, endpoints int, say func(string, ...any)) (*Million, error) {
	const clusters = 250
	mesh, err := workload.NewMesh(clusters, workload.Shape{Nodes: 100, Identities: 100, Endpoints: endpoints / clusters}, home)
	if err != nil {
		return nil, err
	}
	out := &Million{Load: load(), Clusters: clusters, Endpoints: mesh.Size().Endpoints}
	say("%d endpoints: publishing", out.Endpoints)
	r, err := newRig(dir, mesh, mapSizes(mesh), say)
	defer r.close()
	if err != nil {
		return nil, err
	}
	if err := r.startOperator(); err != nil {
		return nil, err
	}
	if err := r.awaitOperator(mesh.Records()); err != nil {
		return nil, err
	}
	var s Size
	if err := s.measureBootstrap(r); err != nil {
		return nil, err
	}
	out.Bootstrap = s.Bootstrap
	out.AgentResident, out.AgentPeak, out.OperatorResident, out.KernelMap = s.AgentResident, s.AgentPeak, s.OperatorResident, s.KernelMaps
	c := newChurn(r)
	took, err := c.probes(20*time.Second, 100*time.Millisecond)
	out.Latency = quantiles(took)
	if err != nil {
		return nil, fmt.Errorf("one change at a time: %w", err)
	}
	return out, nil
}
