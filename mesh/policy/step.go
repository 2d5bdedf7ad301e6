// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// maxGone bounds Engine.gone: beyond it flows look up their peers' classes again.
const maxGone = 4096

// Step takes over what was set since the last one. The delta before must have been written.
func (e *Engine) Step() *Delta {
	d := newDelta()
	e.begin()
	e.applyInputs(d)
	e.draft()

	// Before the switch: what is in force keeps its meaning.
	e.adoptBits()
	e.findStale()
	e.assignBits(d)
	e.flush(d, &d.Before, false)
	e.finish()
	e.groups.flush(d.Before.Groups)
	e.flushSubjects(d)

	// After the switch: nothing refers any more to what this removes.
	e.freeSets(d)
	e.sweepCIDRs(d)
	e.placeArrived()
	e.flush(d, &d.After, true)
	e.roomy = e.groups.sweep(d.After.Groups)
	e.end(d)
	return d
}

func (e *Engine) begin() {
	e.forget = false
	e.bits.step()
	e.classes.pool.step()
	if len(e.groups.recent) > maxRecent {
		e.forget = true
		clear(e.groups.recent)
	}
}

func (e *Engine) end(d *Delta) {
	if len(e.gone) > maxGone {
		d.Switch = true
	}
	// What flows remember from before a restart is not known.
	d.Forget = e.forget || e.unsure && d.writes()
	e.unsure = e.unsure && !d.Forget
	d.Switch = d.Switch || d.Forget
	if d.Switch {
		clear(e.gone)
	}
	e.started = true
	closed := func(p *profile) bool { return p.group == nil }
	starved := func(p *profile) bool { return len(p.starved) > 0 }
	d.Again = e.roomy && e.anyProfile(closed) || len(e.bits.freed) > 0 && e.anyProfile(starved) ||
		len(e.waiting) > 0 && len(e.classes.pool.freed) > 0
}

func (e *Engine) anyProfile(is func(*profile) bool) bool {
	for _, p := range e.profiles {
		if is(p) {
			return true
		}
	}
	return false
}

func (e *Engine) applyInputs(d *Delta) {
	e.applyClusters()
	e.applyIdentities()
	e.applyPorts()
	e.applyNodes()
	e.applyServices()
	e.applyPolicies(d)
	e.applySubjects()
	e.inputs = newInputs()
	if e.started {
		return
	}
	for _, rules := range [][2]Rule{unknownSubject, noRoom} {
		for _, rule := range rules {
			d.Rules[rule.ID] = &rule
		}
	}
	for _, id := range sortedKeys(e.ghosts) { // nobody set them again
		e.classes.leave(e.ghosts[id])
		e.classes.move(e.ghosts[id])
	}
	clear(e.ghosts)
}

// applyClusters takes over labels of clusters. They decide which identities selectors of clusters mean, and which policies
// of the local cluster apply.
func (e *Engine) applyClusters() {
	for _, name := range sortedKeys(e.inputs.clusters) {
		before, known := e.clusters.labels[name]
		e.clusters.set(name, e.inputs.clusters[name])
		after, knows := e.clusters.labels[name]
		if known == knows && maps.Equal(before, after) {
			continue
		}
		for _, ns := range e.index.spaces {
			if ns.cluster != name {
				continue
			}
			for _, i := range ns.members {
				e.touch(i)
			}
		}
		if name == e.clusters.local {
			e.judgeAll()
		}
	}
}

func (e *Engine) judgeAll() {
	for _, key := range sortedKeys(e.policies.byKey) {
		p := e.policies.byKey[key]
		if p.model.clusters == nil {
			continue
		}
		applied := p.applies
		e.judge(p)
		if p.applies == applied {
			continue
		}
		for _, s := range e.subjects {
			if s.drop(p) {
				e.restale(s)
			}
			if s.known() && e.isSelected(p, s.pod.labels) {
				s.insert(p)
				e.restale(s)
			}
		}
	}
}

// applyIdentities takes over labels of identities.
func (e *Engine) applyIdentities() {
	for _, id := range sortedKeys(e.inputs.identities) {
		l, i := labels.Set(e.inputs.identities[id]), e.index.pods[id]
		if i == nil && l == nil || i != nil && l != nil && maps.Equal(i.labels, l) {
			continue
		}
		if i != nil {
			e.countSubject(i, -1)
			e.index.remove(i)
		} else if i = e.ghosts[id]; i == nil {
			i = &ident{id: id}
		}
		delete(e.ghosts, id)
		i.labels = l
		if l != nil {
			e.index.add(i)
			e.countSubject(i, 1)
		} else {
			e.forgetIdentity(i)
		}
		e.touch(i)
		if s := e.subjects[id]; s != nil {
			e.meet(s)
		}
	}
}

// countSubject keeps what PolicySubjects says.
func (e *Engine) countSubject(i *ident, by int) {
	if !e.clusters.isSubject(i.id, i.labels) {
		return
	}
	for _, list := range [][]*installed{e.policies.byNamespace[i.labels[identity.LabelNamespace]], e.policies.byNamespace[""]} {
		for _, p := range list {
			if e.isSelected(p, i.labels) {
				p.selected += by
			}
		}
	}
}

// touch notes that an identity's sets may be others now.
func (e *Engine) touch(i *ident) {
	for name := range e.named[i.id] {
		e.updateFamilies(i.id, name)
	}
	switch {
	case i.labels == nil && i.cidr == nil:
	case i.class != nil:
		e.changed[i] = struct{}{}
	default:
		e.arrived[i] = struct{}{}
	}
}

func (e *Engine) forgetIdentity(i *ident) {
	e.classes.leave(i)
	delete(e.changed, i)
	delete(e.arrived, i)
	delete(e.waiting, i)
}

// applyPorts takes over named ports.
func (e *Engine) applyPorts() {
	for _, id := range sortedKeys(e.inputs.ports) {
		before, after := e.named[id], e.inputs.ports[id]
		if maps.EqualFunc(before, after, slices.Equal[[]uint16]) {
			continue
		}
		if len(after) > 0 {
			e.named[id] = after
		} else {
			delete(e.named, id)
		}
		for name := range before {
			delete(e.callers[name], id)
			if len(e.callers[name]) == 0 {
				delete(e.callers, name)
			}
		}
		for name := range after {
			if e.callers[name] == nil {
				e.callers[name] = map[uint32]struct{}{}
			}
			e.callers[name][id] = struct{}{}
		}
		for name := range before {
			e.updateFamilies(id, name)
		}
		if i := e.index.pods[id]; i != nil {
			e.touch(i)
		}
		if s := e.subjects[id]; s != nil {
			e.restale(s)
		}
	}
}

// draft gives subjects their profiles, and these their lines.
func (e *Engine) draft() {
	e.draftSubjects()
	for _, p := range sortedProfiles(e.redraft) {
		if e.profiles[p.key] == p {
			e.draftProfile(p)
		}
	}
	clear(e.redraft)
}

// finish gives profiles their groups.
func (e *Engine) finish() {
	if e.roomy {
		for _, p := range e.profiles {
			if p.group == nil {
				e.unfinished[p] = struct{}{}
			}
		}
	}
	for _, p := range sortedProfiles(e.unfinished) {
		e.finishProfile(p)
	}
	clear(e.unfinished)
}

// sortedProfiles makes the order independent of the map's: by key, which has the policies in it.
func sortedProfiles(m map[*profile]struct{}) []*profile {
	return slices.SortedFunc(maps.Keys(m), func(a, b *profile) int { return cmp.Or(cmp.Compare(a.seq, b.seq), strings.Compare(a.key, b.key)) })
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
