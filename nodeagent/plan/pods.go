// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// podFacts is what policies need to know of endpoints: which identities this node's pods have, and which numbers the pods
// of an identity give to the names of their ports. It counts pods, so that one that is more of the same changes nothing.
type podFacts struct {
	policy   *policyPlan
	subjects map[uint32]int       // pods of this node by identity
	named    map[uint32][]portUse // by identity; most have one
	sets     map[record.NamedPorts]*portSet
	rows     map[string]table.Pod // this node's pods that changed; the zero Pod is gone
	// remembered are identities that had pods here in an earlier run. They stay subjects until it is known that they have
	// none: the newest pods may be missing from what the disk remembers, and must not lose their policy for that.
	remembered map[uint32]bool
}

// portSet is what pods of one or more identities give to the names of their ports.
type portSet struct {
	ports      record.NamedPorts
	numbers    map[string][]uint16 // the same, as policies take it
	identities int
}

// portUse counts the pods of an identity that have a set.
type portUse struct {
	set  *portSet
	pods int
}

func newPodFacts(p *policyPlan, before map[policy.SubjectKey]policy.Subject) *podFacts {
	f := &podFacts{
		policy: p, subjects: map[uint32]int{}, named: map[uint32][]portUse{}, sets: map[record.NamedPorts]*portSet{},
		rows: map[string]table.Pod{}, remembered: map[uint32]bool{},
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
		f.policy.setNamedPorts(id, f.numbers(id))
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
	if e.NamedPorts != (record.NamedPorts{}) && f.countPorts(e.Identity, e.NamedPorts, n) {
		changed[e.Identity] = true
	}
}

// countPorts counts a pod more or less that gives these numbers to its ports, and reports whether the identity's pods gave
// others before.
func (f *podFacts) countPorts(id uint32, ports record.NamedPorts, n int) (changed bool) {
	uses := f.named[id]
	at := slices.IndexFunc(uses, func(u portUse) bool { return u.set.ports == ports })
	if at < 0 {
		set := f.sets[ports]
		if set == nil {
			set = &portSet{ports: ports, numbers: map[string][]uint16{}}
			for name, number := range ports.All() {
				set.numbers[name] = []uint16{number}
			}
			f.sets[ports] = set
		}
		set.identities++
		f.named[id] = append(uses, portUse{set, n})
		return true
	}
	if uses[at].pods += n; uses[at].pods != 0 {
		return false
	}
	set := uses[at].set
	if set.identities--; set.identities == 0 {
		delete(f.sets, ports)
	}
	if uses = slices.Delete(uses, at, at+1); len(uses) > 0 {
		f.named[id] = uses
	} else {
		delete(f.named, id)
	}
	return true
}

// numbers of an identity's pods by port name, ascending. Nobody changes them: identities share them.
func (f *podFacts) numbers(id uint32) map[string][]uint16 {
	uses := f.named[id]
	switch len(uses) {
	case 0:
		return nil
	case 1:
		return uses[0].set.numbers
	}
	out := map[string][]uint16{}
	for _, u := range uses {
		for name, number := range u.set.ports.All() {
			if at, there := slices.BinarySearch(out[name], number); !there {
				out[name] = slices.Insert(out[name], at, number)
			}
		}
	}
	return out
}
