// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// subject is an identity of this node's pods.
type subject struct {
	id       uint32
	pod      *ident // nil: its labels are not known
	policies []*installed
	profiles [2]*profile
	dirty    bool // policies or ports changed
}

func (s *subject) known() bool { return s.pod != nil }

// insert adds a policy in the order of the keys.
func (s *subject) insert(p *installed) {
	at, found := slices.BinarySearchFunc(s.policies, p.model.key, func(a *installed, key string) int { return cmp.Compare(a.model.key, key) })
	if !found {
		s.policies = slices.Insert(s.policies, at, p)
	}
}

func (s *subject) drop(p *installed) bool {
	n := len(s.policies)
	s.policies = slices.DeleteFunc(s.policies, func(o *installed) bool { return o == p })
	return len(s.policies) != n
}

func (e *Engine) restale(s *subject) {
	s.dirty = true
	e.pending[s] = struct{}{}
}

// applySubjects takes over subjects that came or went.
func (e *Engine) applySubjects() {
	for _, id := range sortedKeys(e.inputs.subjects) {
		s := e.subjects[id]
		switch present := e.inputs.subjects[id]; {
		case present && s == nil:
			s = &subject{id: id}
			e.subjects[id] = s
			e.meet(s)
		case !present && s != nil:
			delete(e.subjects, id)
			s.pod, s.policies = nil, nil
			e.restale(s)
		}
	}
}

// meet finds the policies of a subject, by the labels of its identity.
func (e *Engine) meet(s *subject) {
	s.pod, s.policies = nil, nil
	if i := e.index.pods[s.id]; i != nil && e.clusters.isSubject(s.id, i.labels) {
		s.pod, s.policies = i, e.selecting(i.labels)
	}
	e.restale(s)
}

// draftSubjects gives subjects their profiles.
func (e *Engine) draftSubjects() {
	for _, s := range e.pendingSubjects() {
		if !s.dirty {
			continue
		}
		s.dirty = false
		for dir := range s.profiles {
			before := s.profiles[dir]
			s.profiles[dir] = nil
			if s.known() {
				s.profiles[dir] = e.profile(s, Direction(dir))
			}
			if before != nil && before != s.profiles[dir] {
				delete(before.subjects, s)
				e.dropProfile(before)
			}
		}
	}
}

// profile returns the one that a subject belongs to.
func (e *Engine) profile(s *subject, dir Direction) *profile {
	var list []*installed
	for _, p := range s.policies {
		if p.model.dirs[dir] != nil {
			list = append(list, p)
		}
	}
	var ports map[string][]uint16
	if dir == Ingress {
		ports = listeningPorts(list, e.named[s.id])
	}
	key := profileKey(dir, list, ports)
	p := e.profiles[key]
	if p == nil {
		e.seq++
		p = &profile{key: key, seq: e.seq, dir: dir, policies: list, ports: ports, subjects: map[*subject]struct{}{}}
		e.profiles[key] = p
		e.draftProfile(p)
	}
	p.subjects[s] = struct{}{}
	return p
}

// dropProfile forgets a profile that has no subject.
func (e *Engine) dropProfile(p *profile) {
	if len(p.subjects) > 0 || e.profiles[p.key] != p {
		return
	}
	delete(e.profiles, p.key)
	delete(e.unfinished, p)
	sets, families := p.sets, p.families
	p.sets, p.families = nil, nil
	e.dropUses(p, sets, families)
	if p.group != nil {
		e.groups.release(p.group)
		p.group = nil
	}
}

func (e *Engine) pendingSubjects() []*subject {
	return slices.SortedFunc(maps.Keys(e.pending), func(a, b *subject) int { return cmp.Compare(a.id, b.id) })
}

// flushSubjects writes the rows of subjects that changed: first those that go, to make room for others.
func (e *Engine) flushSubjects(d *Delta) {
	if !e.started {
		for key := range e.rows {
			if e.subjects[key.Identity] == nil {
				e.dropRow(key, d)
			}
		}
	}
	list := e.pendingSubjects()
	clear(e.pending)
	for _, s := range list {
		if e.subjects[s.id] == nil {
			for dir := range s.profiles {
				e.dropRow(SubjectKey{s.id, Direction(dir)}, d)
			}
		}
	}
	for _, s := range list {
		if e.subjects[s.id] == s {
			e.writeRows(s, d)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(e.rowless), compareSubjects) {
		if s := e.subjects[key.Identity]; s != nil && len(e.rows) < e.limits.Subjects {
			e.writeRows(s, d)
		}
	}
	d.Switch = d.Switch || len(d.Subjects) > 0
}

func compareSubjects(a, b SubjectKey) int {
	return cmp.Or(cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Dir, b.Dir))
}

func (e *Engine) dropRow(key SubjectKey, d *Delta) {
	delete(e.rowless, key)
	if _, has := e.rows[key]; has {
		delete(e.rows, key)
		d.Subjects[key] = nil
	}
}

func (e *Engine) writeRows(s *subject, d *Delta) {
	for dir, p := range s.profiles {
		key, row := SubjectKey{s.id, Direction(dir)}, closedBy(&unknownSubject[dir])
		if p != nil {
			row = p.row
		}
		old, has := e.rows[key]
		if has && old == row {
			continue
		}
		if !has && len(e.rows) >= e.limits.Subjects {
			e.rowless[key] = struct{}{}
			continue
		}
		delete(e.rowless, key)
		e.rows[key] = row
		d.Subjects[key] = &row
	}
}

// roomProblems are what has no room in the maps.
func (e *Engine) roomProblems() []Problem {
	var out []Problem
	starved, closed := map[string]struct{}{}, 0
	for _, p := range e.profiles {
		for _, key := range p.starved {
			starved[key] = struct{}{}
		}
		if p.group == nil {
			closed += len(p.subjects)
		}
	}
	for key := range starved {
		out = append(out, Problem{PolicyKey: key, Message: fmt.Sprintf("the node has no room for all of its rules' peers (%d sets for all namespaces, classes, or %d CIDRs): some of its rules deny everybody or allow nobody",
			e.limits.Sets-1, e.cidrs.limit)})
	}
	if closed > 0 {
		out = append(out, Problem{Message: fmt.Sprintf("the policies of %d subjects have no room in fl_groups (%d rows): they are isolated", closed, e.limits.Chunks)})
	}
	if n := len(e.rowless); n > 0 {
		out = append(out, Problem{Message: fmt.Sprintf("%d subjects have no room in fl_subjects (%d rows a bank): their packets are dropped", n, e.limits.Subjects)})
	}
	if n := len(e.waiting); n > 0 {
		out = append(out, Problem{Message: fmt.Sprintf("%d identities have no room in fl_identities (%d rows) or fl_classes (%d rows): their packets are dropped", n, e.limits.Identities, e.limits.Classes)})
	}
	return out
}
