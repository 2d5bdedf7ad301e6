// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// podFacts is what policies need to know of endpoints: which identities this node's pods have, and which numbers the pods
// of an identity give to the names of their ports. It counts pods, so that one that is more of the same changes nothing.
type podFacts struct {
	policy   *policyPlan
	subjects map[uint32]int                       // pods of this node by identity
	named    map[uint32]map[string]map[uint16]int // identity → "name/TCP" → number → pods
	rows     map[string]table.Pod                 // this node's pods that changed; the zero Pod is gone
	// remembered are identities that had pods here in an earlier run. They stay subjects until it is known that they have
	// none: the newest pods may be missing from what the disk remembers, and must not lose their policy for that.
	remembered map[uint32]bool
}

func newPodFacts(p *policyPlan, before map[policy.SubjectKey]policy.Subject) *podFacts {
	f := &podFacts{
		policy: p, subjects: map[uint32]int{}, named: map[uint32]map[string]map[uint16]int{}, rows: map[string]table.Pod{},
		remembered: map[uint32]bool{},
	}
	for key := range before {
		f.remembered[key.Identity] = true
		p.setSubject(key.Identity, true)
	}
	return f
}

// forgetRemembered is called when all pods of this node are known.
func (f *podFacts) forgetRemembered() {
	for id := range f.remembered {
		if f.subjects[id] == 0 {
			f.policy.setSubject(id, false)
		}
	}
	clear(f.remembered)
}

func (f *podFacts) change(wasLocal, isLocal bool, before, now *record.Endpoint) {
	changed := map[uint32]bool{}
	if now != nil {
		f.count(now, isLocal, +1, changed)
	}
	if before != nil {
		f.count(before, wasLocal, -1, changed)
	}
	for id := range changed {
		f.policy.setNamedPorts(id, f.ports(id))
	}
}

func (f *podFacts) count(e *record.Endpoint, local bool, n int, changed map[uint32]bool) {
	if local {
		was := f.subjects[e.Identity]
		f.subjects[e.Identity] = was + n
		if was == 0 {
			f.policy.setSubject(e.Identity, true)
		}
		if was+n == 0 {
			delete(f.subjects, e.Identity)
			if !f.remembered[e.Identity] {
				f.policy.setSubject(e.Identity, false)
			}
		}
	}
	for name, port := range e.NamedPorts {
		if f.countPort(e.Identity, name, port, n) {
			changed[e.Identity] = true
		}
	}
}

// countPort reports whether a number was the first of its name, or the last.
func (f *podFacts) countPort(id uint32, name string, port uint16, n int) bool {
	names := f.named[id]
	if names == nil {
		names = map[string]map[uint16]int{}
		f.named[id] = names
	}
	numbers := names[name]
	if numbers == nil {
		numbers = map[uint16]int{}
		names[name] = numbers
	}
	was := numbers[port]
	if numbers[port] = was + n; was+n == 0 {
		delete(numbers, port)
	}
	if len(numbers) == 0 {
		delete(names, name)
	}
	if len(names) == 0 {
		delete(f.named, id)
	}
	return was == 0 || was+n == 0
}

func (f *podFacts) ports(id uint32) map[string][]uint16 {
	names := f.named[id]
	if len(names) == 0 {
		return nil
	}
	out := make(map[string][]uint16, len(names))
	for name, numbers := range names {
		out[name] = slices.Sorted(maps.Keys(numbers))
	}
	return out
}
