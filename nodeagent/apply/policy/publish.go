// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Change is what the planner changes at a time. It comes into force in this order, each part when the one before is
// written:
//
//  1. Forget: every flow is judged in full before it relies on a class or group that it remembers.
//  2. Before: rows that nothing in force refers to; identities that go.
//  3. Subjects, all at once. Switch also asks for that where no subject changes: flows then look up their classes again.
//  4. After: what nothing refers to any more goes; identities that are new come.
type Change struct {
	Forget   bool
	Before   Rows
	Switch   bool
	Subjects map[bpf.SubjectKey]*bpf.Subject // bank 0 in the key; nil: gone
	After    Rows
}

// Rows of the maps that subjects refer to. A nil value removes the row.
type Rows struct {
	Sets    map[uint32]*uint64
	Classes map[uint32]*bpf.ClassSets
	Members map[uint32]*bpf.IdentityClass
	Blocks  map[netip.Prefix]*uint32 // the identity of a CIDR that policies name
	Groups  map[bpf.GroupKey]*bpf.GroupChunk
}

// Publisher brings changes, one after another, to the tables that [New]'s steps follow.
type Publisher struct {
	tables *table.Tables
	to     table.PlanWriters
	sw     *Switch

	change *Change // what is left of the one at hand
	phase  phase
}

type phase uint8

const (
	idle       phase = iota
	forgetting       // the switch raises the epochs
	switching        // Before is in the tables, and so are the subjects
	cleaning         // After is in the tables
)

// NewPublisher begins with what the kernel holds as what is wanted: from there on changes are changes.
func NewPublisher(t *table.Tables, sw *Switch, m Memory) *Publisher {
	p := &Publisher{tables: t, to: t.ForPlan(), sw: sw}
	t.Write(func(txn *table.Txn) {
		seed(txn, p.to.Sets, m.Sets)
		seed(txn, p.to.Classes, m.Classes)
		seed(txn, p.to.Members, m.Members)
		seed(txn, p.to.Blocks, m.Blocks)
		seed(txn, p.to.Groups, m.Groups)
		seed(txn, p.to.Subjects, m.Subjects)
	})
	return p
}

func seed[K, V comparable](txn *table.Txn, to table.Writer[K, V], rows map[K]V) {
	for key, value := range rows {
		to.Put(txn, key, value)
	}
}

// Ready says that the change before is written as a whole, or that what was refused of it is closed: another may come.
func (p *Publisher) Ready() bool { return p.phase == idle }

// Publish begins a change. It may only be called when Ready.
func (p *Publisher) Publish(c Change) {
	p.change, p.phase = &c, forgetting
	if c.Forget {
		p.sw.forget()
	}
	p.Step()
}

// Step goes on with the change at hand. Call it before each pass. It reports whether it wrote anything to the tables.
func (p *Publisher) Step() (wrote bool) {
	if p.phase == forgetting && !p.sw.forgetting() {
		p.begin()
		return true
	}
	if p.phase == switching && p.sw.inForce() {
		p.write(p.change.After)
		p.change, p.phase = nil, cleaning
		p.sw.dirty = true
		return true
	}
	if p.phase == cleaning && p.sw.clean() {
		p.phase = idle
	}
	return false
}

func (p *Publisher) begin() {
	p.write(p.change.Before)
	if p.change.Switch {
		p.sw.demand()
	}
	p.tables.Write(func(txn *table.Txn) { merge(txn, p.to.Subjects, p.change.Subjects) })
	p.phase = switching
	p.sw.dirty = true
}

func (p *Publisher) write(r Rows) {
	p.tables.Write(func(txn *table.Txn) {
		merge(txn, p.to.Sets, r.Sets)
		merge(txn, p.to.Classes, r.Classes)
		merge(txn, p.to.Members, r.Members)
		merge(txn, p.to.Blocks, r.Blocks)
		merge(txn, p.to.Groups, r.Groups)
	})
}

func merge[K, V comparable](txn *table.Txn, to table.Writer[K, V], rows map[K]*V) {
	for key, value := range rows {
		if value == nil {
			to.Delete(txn, key)
		} else {
			to.Put(txn, key, *value)
		}
	}
}
