// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package services writes what service addresses lead to: slots, then the frontends that count them. A frontend never
// counts a slot that isn't there, neither while it grows nor while it shrinks.
package services

import (
	"context"
	"fmt"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Driver of the service maps.
type Driver struct {
	Slots     apply.Target[bpf.SlotKey, bpf.Backend]
	Frontends apply.Target[table.Frontend, bpf.Service]
}

// Steps in the order in which additions are written.
func Steps(t *table.Tables, d Driver) []apply.Step {
	slots := apply.Follow(t.Slots, d.Slots)
	return []apply.Step{slots, apply.Follow(t.Frontends, counting{d.Frontends, slots})}
}

// counting refuses a frontend that would count a slot the kernel has refused; the frontend stays as it was.
type counting struct {
	apply.Target[table.Frontend, bpf.Service]
	slots *apply.Follower[bpf.SlotKey, bpf.Backend]
}

func (c counting) Update(ctx context.Context, keys []table.Frontend, values []bpf.Service) []error {
	if c.slots.Refusals() == 0 {
		return c.Target.Update(ctx, keys, values)
	}
	return apply.Filter(keys, values, c.complete, func(k []table.Frontend, v []bpf.Service) []error {
		return c.Target.Update(ctx, k, v)
	})
}

// complete says which of the frontend's slots is missing.
func (c counting) complete(_ table.Frontend, s bpf.Service) error {
	for slot := range s.Backends {
		if c.slots.Refuses(bpf.SlotKey{Service: s.ID, Slot: slot}) {
			return fmt.Errorf("slot %d of service %d is not written", slot, s.ID)
		}
	}
	return nil
}
