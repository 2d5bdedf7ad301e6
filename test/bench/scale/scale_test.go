// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

func TestMain(m *testing.M) {
	if role := process.Role(); role != "" {
		if err := roles.Serve(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// small is enough to be wrong.
var small = workload.Shape{Nodes: 4, Identities: 6, Endpoints: 20}

func start(t *testing.T, clusters int) *rig {
	t.Helper()
	mesh, err := workload.NewMesh(clusters, small, small)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRig(t.TempDir(), mesh, nil, t.Logf)
	t.Cleanup(r.close)
	steps := []func() error{
		func() error { return err }, r.startOperator, func() error { return r.awaitOperator(mesh.Records()) }, r.startAgent, r.awaitProgrammed,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (c *churn) burst(t *testing.T, n int) {
	t.Helper()
	for range n {
		c.do(func(cl *workload.Cluster) workload.Change { return cl.Endpoint(c.rand) })
		c.do(func(cl *workload.Cluster) workload.Change { return cl.Identity() })
		c.do(func(cl *workload.Cluster) workload.Change { return cl.Node() })
	}
	if _, err := c.probe(limit); err != nil {
		t.Fatal(err)
	}
	if err := c.rig.awaitProgrammed(); err != nil {
		t.Fatal(err)
	}
}

// What clusters publish is what the kernel's map holds, through changes and through restarts of every part between them.
func TestNothingIsMissing(t *testing.T) {
	for _, clusters := range []int{1, 3} {
		t.Run(fmt.Sprintf("clusters=%d", clusters), func(t *testing.T) {
			r := start(t, clusters)
			c := newChurn(r)
			c.burst(t, 20)

			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(r.store.Call("stop", roles.None{}, nil))
			c.do(func(cl *workload.Cluster) workload.Change { return cl.Endpoint(c.rand) }) // nobody can hear of it yet
			must(r.store.Call("up", roles.None{}, nil))
			c.burst(t, 5)

			r.operator.Kill()
			must(r.startOperator())
			c.burst(t, 5)

			r.agent.Kill()
			c.do(func(cl *workload.Cluster) workload.Change { return cl.Endpoint(c.rand) })
			must(r.startAgent())
			c.burst(t, 5)
		})
	}
}

// An agent that comes back takes only what changed meanwhile, and its kernel keeps every row in between.
func TestAgentResumes(t *testing.T) {
	r := start(t, 3)
	var before, after roles.AgentState
	if err := r.agent.Call("state", roles.None{}, &before); err != nil {
		t.Fatal(err)
	}
	if err := r.await("snapshot", func() (bool, string, error) {
		_, err := os.Stat(filepath.Join(r.dir, "agent", "snapshot"))
		return err == nil, "not on disk", nil
	}); err != nil {
		t.Fatal(err)
	}
	r.agent.Kill()
	diff, err := r.kernel.compare(r.mesh.Want())
	if err != nil || !diff.equal() {
		t.Fatalf("without an agent: %v, %v", diff, err)
	}
	if err := r.startAgent(); err != nil {
		t.Fatal(err)
	}
	newChurn(r).burst(t, 1)
	if err := r.agent.Call("state", roles.None{}, &after); err != nil {
		t.Fatal(err)
	}
	// Of about 93 records the first agent got all, the second 4. TLS and gRPC take the same of both.
	if after.Received*2 > before.Received {
		t.Errorf("the agent that came back received %d bytes, the first one %d", after.Received, before.Received)
	}
}

// Agents that read slowly, or have stopped reading, hold up nobody.
func TestSlowReadersHoldUpNobody(t *testing.T) {
	r := start(t, 1)
	readers, err := process.Start(roles.Readers, r.dir, roles.ReadersConfig{Relay: r.relay, Slow: 2, Stuck: 2, Brisk: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(readers.Stop)
	if err := r.await("readers", func() (bool, string, error) {
		var p roles.Progress
		err := r.operator.Call("progress", roles.None{}, &p)
		return p.Subscribers >= 6, fmt.Sprint(p.Subscribers), err
	}); err != nil {
		t.Fatal(err)
	}
	newChurn(r).burst(t, 20)
}
