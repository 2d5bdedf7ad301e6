// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

// family is the peers of an egress rule by the numbers that their pods give a port's name: the rule has a line for each
// number, about those who call it so.
type family struct {
	key, name string // name as in World.NamedPorts
	anyPeer   bool   // else pods
	pods      []peer // CIDRs have no named ports
	orUnknown bool

	members map[uint32][]uint16 // identity → numbers
	counts  map[uint16]int      // number → members
	sets    map[uint16]*set
	users   map[*profile]struct{}
}

func newFamily(key string, r *rule, name string) *family {
	return &family{
		key: key, name: name, anyPeer: r.anyPeer, orUnknown: r.kind.denies(),
		pods:    slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return p.pods == nil }),
		members: map[uint32][]uint16{}, counts: map[uint16]int{}, sets: map[uint16]*set{}, users: map[*profile]struct{}{},
	}
}

func (f *family) numbers() []uint16 { return slices.Sorted(maps.Keys(f.counts)) }

// includes says whether an identity, which has labels, is one of the peers.
func (f *family) includes(c *clusters, i *ident) bool {
	return f.anyPeer || slices.ContainsFunc(f.pods, func(p peer) bool { return c.selects(p.pods, i.labels, f.orUnknown) })
}

// update sets the numbers of an identity, none if it is no peer. It says whether the family's numbers are others now.
func (f *family) update(id uint32, numbers []uint16) (changed bool) {
	before := f.members[id]
	if slices.Equal(before, numbers) {
		return false
	}
	for _, n := range numbers {
		if f.counts[n]++; f.counts[n] == 1 {
			changed = true
		}
	}
	for _, n := range before {
		if f.counts[n]--; f.counts[n] == 0 {
			delete(f.counts, n)
			changed = true
		}
	}
	if len(numbers) == 0 {
		delete(f.members, id)
	} else {
		f.members[id] = numbers
	}
	return changed
}

// family returns the peers of an egress rule by what they call a port's name.
func (e *Engine) family(r *rule, name string) *family {
	key := r.pods
	if r.anyPeer {
		key = "any"
	}
	key += "\x02" + name
	if f := e.families[key]; f != nil {
		return f
	}
	f := newFamily(key, r, name)
	for id := range e.callers[name] {
		if i := e.index.pods[id]; i != nil && f.includes(e.clusters, i) {
			f.update(id, e.named[id][name])
		}
	}
	e.families[key] = f
	e.byPort[name] = append(e.byPort[name], f)
	e.lonely[f] = struct{}{} // until somebody uses it
	return f
}

func (e *Engine) familySet(owner string, f *family, number uint16) *set {
	s := f.sets[number]
	if s == nil {
		s = e.newSet(&set{key: f.key + "\x02" + strconv.Itoa(int(number)), family: f, number: number})
		f.sets[number] = s
	}
	s.asks(owner)
	return s
}

// updateFamilies takes over what an identity calls by a port's name.
func (e *Engine) updateFamilies(id uint32, name string) {
	i := e.index.pods[id]
	for _, f := range e.byPort[name] {
		var numbers []uint16
		if i != nil && f.includes(e.clusters, i) {
			numbers = e.named[id][name]
		}
		if f.update(id, numbers) {
			maps.Copy(e.redraft, f.users)
		}
	}
}

// callersOf returns the identities that give a port's name a number, ascending.
func (e *Engine) callersOf(f *family, number uint16) []*ident {
	var out []*ident
	for id, numbers := range f.members {
		if slices.Contains(numbers, number) {
			out = append(out, e.index.pods[id])
		}
	}
	slices.SortFunc(out, func(a, b *ident) int { return cmp.Compare(a.id, b.id) })
	return out
}

// freeFamilies removes families that nobody uses.
func (e *Engine) freeFamilies() {
	for f := range e.lonely {
		if len(f.users) == 0 && e.families[f.key] == f {
			delete(e.families, f.key)
			e.byPort[f.name] = slices.DeleteFunc(e.byPort[f.name], func(o *family) bool { return o == f })
			if len(e.byPort[f.name]) == 0 {
				delete(e.byPort, f.name)
			}
		}
	}
	clear(e.lonely)
}
