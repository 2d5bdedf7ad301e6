// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"hash/fnv"
)

// ruleIDs hands out ids that stay the same as long as a rule keeps its place, whatever happens to other policies, and
// that are the same on every node: counters and events can be compared across nodes and restarts.
type ruleIDs map[uint32]Rule

// add gives a rule its id. Policies come in the order of their keys, so where two hashes collide (1 in 4 billion for a
// pair) every node moves the same one.
func (ids ruleIDs) add(r Rule) uint32 {
	for salt := 0; ; salt++ {
		h := fnv.New32a()
		fmt.Fprintf(h, "%s|%s|%s|%d", r.PolicyKey, r.Direction, r.Kind, r.Index)
		if salt > 0 {
			fmt.Fprintf(h, "|%d", salt)
		}
		id := h.Sum32()
		if _, taken := ids[id]; id == 0 || taken {
			continue
		}
		r.ID = id
		ids[id] = r
		return id
	}
}

// register gives ids to all rules of a policy.
func (ids ruleIDs) register(m *model) {
	for dir, d := range m.dirs {
		if d == nil {
			continue
		}
		base := Rule{
			PolicyKey: m.key, Namespace: m.rec.GetNamespace(), Name: m.rec.GetName(), Direction: Direction(dir),
			Audit: m.audit, Provenance: m.rec.GetProvenance(),
		}
		if d.isolates {
			r := base
			r.Kind, r.Index, r.Text = RuleIsolate, -1, m.isolationText(Direction(dir))
			d.isolate = ids.add(r)
		}
		for i := range d.rules {
			r := base
			r.Kind, r.Index, r.Text = d.rules[i].kind, d.rules[i].index, d.rules[i].text
			d.rules[i].id = ids.add(r)
		}
	}
}
