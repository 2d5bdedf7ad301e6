// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// A cluster that got another name leaves its numbers to its successor, whichever of the two records is seen first.
func TestAnIdentityOutlivesItsFormerRecord(t *testing.T) {
	for range 20 {
		tables := table.New()
		w := tables.RecordWriter()
		id := &record.Identity{ID: 2<<16 | 256, Labels: map[string]string{"app": "x"}}
		w.Write(func(x table.RecordTxn) { x.Put("west/identities/131328", id) })
		p := New(Config{Cluster: "east", Node: "n", Limits: limits}, tables, NewMemory())
		p.Step(true, true)
		w.Write(func(x table.RecordTxn) {
			x.Put("occident/identities/131328", id)
			x.Drop("west/identities/131328")
		})
		if d := p.Step(true, true); d != nil {
			if class, changed := d.Before.Identities[id.ID]; changed && class == nil {
				t.Fatal("the number of a record that is there lost its class")
			}
		}
	}
}
