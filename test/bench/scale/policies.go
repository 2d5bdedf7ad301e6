// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// measurePolicies gives the agent's cluster 1,000 policies in a mesh of 10,000 identities. A hundred of them are about pods
// of the agent's node.
func measurePolicies(dir string, say func(string, ...any)) (*Policies, error) {
	const policies = 1000
	mesh, err := workload.NewMesh(10, workload.Shape{Nodes: 100, Identities: 1000, Endpoints: 1000}, home)
	if err != nil {
		return nil, err
	}
	r, err := ready(dir, mesh, nil, say)
	defer r.close()
	if err != nil {
		return nil, err
	}
	out := &Policies{Load: load(), Policies: policies, Identities: mesh.Size().Identities}
	say("%d policies", policies)
	var recs []*recordv1.Record
	for i := range policies {
		rec, err := mesh.Home.Policy(i, 8000+i%10, "main@sha1:1")
		if err != nil {
			return nil, err
		}
		recs = append(recs, rec)
	}
	if out.All, err = r.programmed(policies, func() error {
		_, err := r.applyLocal(recs)
		return err
	}); err != nil {
		return nil, err
	}
	say("one identity appears")
	c := newChurn(r)
	if out.Identity, err = r.series(30, 30*time.Second, c.newIdentity); err != nil {
		return nil, err
	}
	say("one policy changes")
	out.Policy, err = r.series(30, 30*time.Second, func(i int) (time.Duration, error) {
		rec, err := mesh.Home.Policy(0, 9000+i, fmt.Sprintf("main@sha1:%d", 2+i))
		if err != nil {
			return 0, err
		}
		return r.applyLocal([]*recordv1.Record{rec})
	})
	return out, err
}

// applyLocal hands records to the operator and waits until the agent's kernel has them.
func (r *rig) applyLocal(recs []*recordv1.Record) (time.Duration, error) {
	start := time.Now()
	revision, err := r.local(recs)
	if err != nil {
		return 0, err
	}
	at, err := r.awaitApplied(revision)
	return at.Sub(start), err
}

// newIdentity lets another cluster have pods with labels that nobody had before, and waits for their address: rules about
// an identity are in the kernel before an address bears it.
func (c *churn) newIdentity(i int) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.rig.mesh.Clusters[0]
	id, pod, addr := cl.NewIdentity(i)
	start := time.Now()
	c.publish(id)
	c.publish(pod)
	seen, err := c.rig.kernel.awaitAddress(addr, pod.Want[addr], limit)
	return seen.Sub(start), err
}
