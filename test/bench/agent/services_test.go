// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent measures what a node agent does of a change, from the relay's message to the kernel's map. The connection that
// brings the message and the journal are left out; test/bench/scale measures the whole.
package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/plan"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// serviceAgent is the part of an agent that services pass through, with the operator's part that makes their records.
type serviceAgent struct {
	home     *workload.Cluster
	state    *export.State
	tables   *table.Tables
	intake   *intake.Intake
	plan     *plan.Planner
	loop     *apply.Loop
	revision uint64
}

func openDatapath(b *testing.B) *datapath.Datapath {
	b.Helper()
	root := b.TempDir()
	dir := filepath.Join(root, "fairlead")
	if err := datapath.MountBPFFS(dir); err != nil {
		b.Skip("needs root: ", err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			b.Error(err)
		}
	})
	d, err := datapath.Open(datapath.Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}

func newServiceAgent(b *testing.B, d *datapath.Datapath) *serviceAgent {
	b.Helper()
	one := workload.Shape{Nodes: 100, Identities: 1, Endpoints: 1}
	mesh, err := workload.NewMesh(1, one, one)
	if err != nil {
		b.Fatal(err)
	}
	a := &serviceAgent{home: mesh.Home, state: export.NewState("bench"), tables: table.New()}
	a.state.SetMesh(&v1alpha1.ClusterMeshSpec{
		MeshID: workload.MeshID, ClusterName: a.home.Name, ClusterID: int32(a.home.ID), PodCIDRs: []string{a.home.PodCIDR().String()},
	})
	node := a.home.NodeName(0)
	a.intake = intake.New(intake.Config{Tables: a.tables, Node: node, Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
	a.plan = plan.New(plan.Config{Cluster: a.home.Name, Node: node}, a.tables, plan.NewMemory())
	a.loop = apply.NewLoop(a.tables, services.Steps(a.tables, services.Driver{Slots: d.Slots(), Frontends: d.Frontends()})...)
	return a
}

// add makes a service with many backends.
func (a *serviceAgent) add(number, backends int) []*discoveryv1.EndpointSlice {
	svc, list := a.home.Objects(number, backends)
	a.state.SetService(svc.Namespace, svc.Name, svc)
	for _, eps := range list {
		a.state.SetSlice(eps.Namespace, eps.Name, eps)
	}
	return list
}

// message is what the relay sends of what changed.
func (a *serviceAgent) message() *relayv1.Batch {
	out := &relayv1.Batch{}
	for _, c := range a.state.Flush().Local {
		out.Changes = append(out.Changes, &relayv1.Change{Key: c.Key, Record: c.Record})
	}
	return out
}

// take gives what the last part of it took, from the desired rows to the kernel's.
func (a *serviceAgent) take(b *testing.B, m *relayv1.Batch) (written time.Duration) {
	a.revision++
	m.At = &relayv1.ResumePoint{Epoch: "bench", Revision: a.revision}
	if err := a.intake.Handle(m); err != nil {
		b.Fatal(err)
	}
	a.plan.Step(false, true)
	planned := time.Now()
	if p := a.loop.Pass(context.Background(), time.Unix(0, 0), func(string) bool { return true }); p.Failing() > 0 {
		b.Fatalf("%d rows fail", p.Failing())
	}
	return time.Since(planned)
}

// BenchmarkOneBackend of 10,000 goes and comes.
func BenchmarkOneBackend(b *testing.B) {
	const backends = 10_000
	a := newServiceAgent(b, openDatapath(b))
	list := a.add(0, backends)
	first := a.message()
	first.SnapshotStart, first.SnapshotEnd = true, true
	a.take(b, first)

	less := list[50].DeepCopy()
	less.Endpoints = less.Endpoints[1:]
	var messages [2][]byte
	for i, eps := range []*discoveryv1.EndpointSlice{less, list[50]} {
		a.state.SetSlice(eps.Namespace, eps.Name, eps)
		data, err := proto.Marshal(a.message())
		if err != nil {
			b.Fatal(err)
		}
		messages[i] = data
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		m := &relayv1.Batch{}
		if err := proto.Unmarshal(messages[n%2], m); err != nil {
			b.Fatal(err)
		}
		a.take(b, m)
		n++
	}
	b.ReportMetric(float64(len(messages[1])), "bytes/message")
	if want := backends - n%2; a.tables.Slots.Len() != want {
		b.Fatalf("%d slots, want %d", a.tables.Slots.Len(), want)
	}
}

// BenchmarkServices brings 5,000 services with a backend each into the kernel, as at an agent's first contact.
func BenchmarkServices(b *testing.B) {
	const count = 5_000
	d := openDatapath(b)
	written := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		a := newServiceAgent(b, d)
		for i := range count {
			a.add(i, 1)
		}
		first := a.message()
		first.SnapshotStart, first.SnapshotEnd = true, true
		b.StartTimer()
		written += a.take(b, first)
		b.StopTimer()
		if n := a.tables.Frontends.Len(); n != count {
			b.Fatalf("%d frontends", n)
		}
		gone := &relayv1.Batch{}
		for _, c := range first.Changes {
			gone.Changes = append(gone.Changes, &relayv1.Change{Key: c.Key})
		}
		a.take(b, gone)
		b.StartTimer()
	}
	b.ReportMetric(float64(written.Microseconds())/1000/float64(b.N), "ms-written/op")
}
