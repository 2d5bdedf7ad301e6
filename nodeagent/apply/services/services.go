// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package services writes what service addresses lead to: slots, then the frontends that count them. A frontend never
// counts a slot that isn't there, neither while it grows nor while it shrinks.
package services

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Doors of the service maps.
type Doors struct {
	Slots     apply.Target[bpf.SlotKey, bpf.Backend]
	Frontends apply.Target[table.Frontend, bpf.Service]
}

// Steps in the order in which additions are written.
func Steps(t *table.Tables, d Doors) ([]apply.Step, error) {
	slots, err1 := apply.Follow(t.Slots, d.Slots)
	frontends, err2 := apply.Follow(t.Frontends, d.Frontends)
	return []apply.Step{slots, frontends}, errors.Join(err1, err2)
}
