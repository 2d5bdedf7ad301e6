// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/bpf"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

const (
	bigService    = 150_000 // number of the service with many backends
	bigBackends   = 10_000
	changingSlice = 50
)

// measureBackend changes one backend of a large service, from its EndpointSlice to the kernel.
func (s *Services) measureBackend(r *rig) error {
	state := export.NewState("bench")
	state.SetMesh(&v1alpha1.ClusterMeshSpec{
		MeshID: workload.MeshID, ClusterName: r.mesh.Home.Name, ClusterID: int32(r.mesh.Home.ID), PodCIDRs: []string{r.mesh.Home.PodCIDR().String()},
	})
	svc, list := r.mesh.Home.Objects(bigService, bigBackends)
	state.SetService(svc.Namespace, svc.Name, svc)
	for _, eps := range list {
		state.SetSlice(eps.Namespace, eps.Name, eps)
	}
	if err := r.flush(state); err != nil {
		return err
	}
	if err := r.awaitBackends(bigBackends); err != nil {
		return err
	}
	full := list[changingSlice]
	change := func(i int) (time.Duration, error) {
		eps, want := full, bigBackends
		if i%2 == 0 { // one goes, then it comes back
			eps, want = full.DeepCopy(), bigBackends-1
			at := i % len(eps.Endpoints)
			eps.Endpoints = append(eps.Endpoints[:at], eps.Endpoints[at+1:]...)
		}
		start := time.Now()
		state.SetSlice(eps.Namespace, eps.Name, eps)
		if err := r.flush(state); err != nil {
			return 0, err
		}
		err := r.awaitBackends(want)
		return time.Since(start), err
	}
	var err error
	if s.Backend, err = r.series(40, 30*time.Second, change); err != nil {
		return err
	}
	s.BackendRows, err = r.rowsThatDiffer(change)
	return err
}

// rowsThatDiffer counts the map rows that a change of one backend changes, on average.
func (r *rig) rowsThatDiffer(change func(i int) (time.Duration, error)) (float64, error) {
	const counted = 10
	rows := 0
	for i := range counted {
		before, err := r.kernel.backends(bigService)
		if err != nil {
			return 0, err
		}
		if _, err := change(i); err != nil {
			return 0, err
		}
		if err := r.agent.Idle(limit); err != nil {
			return 0, err
		}
		after, err := r.kernel.backends(bigService)
		if err != nil {
			return 0, err
		}
		rows += 1 + differ(before, after) // the service's own row has another count
	}
	return float64(rows) / counted, nil
}

// flush hands to the operator's relay what changed of the state's records of services and slices.
func (r *rig) flush(state *export.State) error {
	var recs []*recordv1.Record
	var gone []string
	for _, c := range state.Flush().Local {
		switch {
		case c.Record == nil:
			gone = append(gone, c.Key)
		case c.Record.GetClusterInfo() == nil: // home's own is there already
			recs = append(recs, c.Record)
		}
	}
	_, err := r.local(recs, gone...)
	return err
}

func (r *rig) awaitBackends(n int) error {
	return r.await("backends", func() (bool, string, error) {
		row, _, err := r.kernel.service(bigService)
		return int(row.Backends) == n, fmt.Sprintf("%d of %d", row.Backends, n), err
	})
}

func differ(a, b []bpf.Backend) (n int) {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			n++
		}
	}
	return n
}
