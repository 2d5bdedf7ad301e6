// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
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
		recs = append(recs, r.mesh.Home.Service(i)...)
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
