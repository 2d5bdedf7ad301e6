// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

const (
	bigService    = 150_000 // number of the service with many backends
	bigBackends   = 10_000
	changingSlice = 50
	hundred       = 100 // backends a slice
)

// measureServices programs many services into the agent's kernel, and changes one backend of a large one.
func measureServices(dir string, say func(string, ...any)) (*Services, error) {
	mesh, err := workload.NewMesh(1, home, home)
	if err != nil {
		return nil, err
	}
	r, err := ready(dir, mesh, map[string]uint32{bpf.MapServices4: 262144, bpf.MapSlots: 524288}, say)
	defer r.close()
	if err != nil {
		return nil, err
	}
	out := &Services{Load: load(), BackendCount: bigBackends}
	for _, n := range []int{5_000, 100_000} {
		say("%d services", n)
		p, err := r.programServices(n)
		if err != nil {
			return nil, err
		}
		out.Program = append(out.Program, p)
	}
	say("a service with %d backends", bigBackends)
	return out, out.measureBackend(r)
}

func (r *rig) programServices(n int) (p Programmed, err error) {
	var recs []*recordv1.Record
	var keys []string
	for i := range n {
		recs = append(recs, r.mesh.Home.Service(i, 1)...)
	}
	for _, rec := range recs {
		key, err := record.Key(rec)
		if err != nil {
			return p, fmt.Errorf("key a record: %w", err)
		}
		keys = append(keys, key)
	}
	p, err = r.programmed(n, func() error {
		if _, err := r.local(recs); err != nil {
			return err
		}
		return r.awaitServices(n, true)
	})
	if err != nil {
		return p, err
	}
	if _, err := r.local(nil, keys...); err != nil {
		return p, err
	}
	return p, r.awaitServices(n, false)
}

// awaitServices waits until all of the first n services are in the kernel, or none is.
func (r *rig) awaitServices(n int, there bool) error {
	at := 0
	return r.await("services", func() (bool, string, error) {
		for ; at < n; at++ { // one that was seen once needn't be looked at again
			row, ok, err := r.kernel.service(at)
			if err != nil || (ok && row.Backends == 1) != there {
				return false, fmt.Sprintf("%d of %d", at, n), err
			}
		}
		return true, "", nil
	})
}

func (s *Services) measureBackend(r *rig) error {
	if _, err := r.local(r.mesh.Home.Service(bigService, bigBackends)); err != nil {
		return err
	}
	if err := r.awaitBackends(bigBackends); err != nil {
		return err
	}
	change := func(i int) (time.Duration, error) {
		without, want := i%hundred, bigBackends-1
		if i%2 == 1 {
			without, want = -1, bigBackends
		}
		start := time.Now()
		if _, err := r.local([]*recordv1.Record{r.mesh.Home.Slice(bigService, changingSlice, hundred, without)}); err != nil {
			return 0, err
		}
		err := r.awaitBackends(want)
		return time.Since(start), err
	}
	var err error
	if s.Backend, err = r.series(40, 30*time.Second, change); err != nil {
		return err
	}
	const counted = 10
	rows := 0
	for i := range counted {
		before, err := r.kernel.backends(bigService)
		if err != nil {
			return err
		}
		if _, err := change(i); err != nil {
			return err
		}
		if err := r.agent.Idle(limit); err != nil {
			return err
		}
		after, err := r.kernel.backends(bigService)
		if err != nil {
			return err
		}
		rows += 1 + differ(before, after) // the service's own row has another count
	}
	s.BackendRows = float64(rows) / counted
	return nil
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
