// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Compile computes the verdicts of all policies together. It never fails: what is wrong with a policy is in
// Result.Problems, and has closed that policy rather than opened anything.
func Compile(in Input) *Result {
	c := &compiler{
		in:  &in,
		ids: ruleIDs{},
		out: &Result{
			Subjects: map[SubjectKey]Subject{}, Entries: map[EntryKey]Entry{},
			Isolation: map[SubjectKey][]uint32{}, PolicySubjects: map[string]int{},
		},
	}
	models := c.decode()
	for _, m := range models {
		c.ids.register(m)
	}
	c.index = newIndex(&in)
	models = slices.DeleteFunc(models, func(m *model) bool { return !c.applies(m) })
	var err error
	if c.cidrs, err = newCIDRs(models, in.PreviousCIDRs); err != nil {
		c.out.Problems = append(c.out.Problems, Problem{Message: err.Error()})
	}
	c.findSubjects(models)
	c.emit()
	c.unknownSubjects()
	c.out.CIDRs = c.cidrs.ids
	c.out.Rules = c.ids
	return c.out
}

// compiler holds what the steps of Compile hand to each other.
type compiler struct {
	in    *Input
	out   *Result
	ids   ruleIDs
	index *index
	cidrs *cidrs

	// states are what policies say about a subject, in the order of the policies' keys.
	states   map[SubjectKey]*state
	resolved map[*rule]*resolvedRule
}

// state is what all policies together say about one direction of a subject.
type state struct {
	enforced []uint32 // isolation rules
	audited  []uint32
	rules    []appliedRule
}

type appliedRule struct {
	*rule
	audit bool
}

// decode understands the policies, in the order of their keys: all that follows depends on it.
func (c *compiler) decode() []*model {
	policies := slices.Clone(c.in.Policies)
	slices.SortStableFunc(policies, func(a, b *policyRecord) int { return cmp.Compare(Key(a), Key(b)) })
	var models []*model
	last := ""
	for i, rec := range policies {
		key := Key(rec)
		if i > 0 && key == last {
			c.problem(key, "the policy was given twice; the first is used")
			continue
		}
		last = key
		m, problems := decode(rec)
		for _, p := range problems {
			c.problem(key, p)
		}
		if m != nil {
			models = append(models, m)
		}
	}
	return models
}

func (c *compiler) problem(key, message string) {
	c.out.Problems = append(c.out.Problems, Problem{PolicyKey: key, Message: message})
}

// applies says whether a policy has subjects in the local cluster at all.
func (c *compiler) applies(m *model) bool {
	set, known := c.index.clusters[c.in.Cluster]
	if m.clusters == nil {
		return true
	}
	if !known {
		c.problem(m.key, fmt.Sprintf("spec.clusterSelector: the labels of cluster %s are not known (yet); the policy is applied", c.in.Cluster))
		return true
	}
	return m.clusters.matches(set)
}

// findSubjects finds the subjects of each policy.
func (c *compiler) findSubjects(models []*model) {
	c.states = map[SubjectKey]*state{}
	c.resolved = map[*rule]*resolvedRule{}
	for _, m := range models {
		subjects := c.index.resolve(&m.subjects, true)
		c.out.PolicySubjects[m.key] = len(subjects)
		for _, id := range subjects {
			if c.in.Subjects != nil {
				if _, wanted := c.in.Subjects[id]; !wanted {
					continue
				}
			}
			for dir, d := range m.dirs {
				if d != nil {
					c.apply(SubjectKey{id, Direction(dir)}, m, d)
				}
			}
		}
	}
}

func (c *compiler) apply(key SubjectKey, m *model, d *direction) {
	s := c.states[key]
	if s == nil {
		s = &state{}
		c.states[key] = s
	}
	if d.isolates && m.audit {
		s.audited = append(s.audited, d.isolate)
	} else if d.isolates {
		s.enforced = append(s.enforced, d.isolate)
	}
	for i := range d.rules {
		s.rules = append(s.rules, appliedRule{&d.rules[i], m.audit})
	}
}

// unknownSubjects isolates pods that no policy can be matched with: an endpoint can be known before its identity.
func (c *compiler) unknownSubjects() {
	var rules [2]uint32
	for _, id := range slices.Sorted(maps.Keys(c.in.Subjects)) {
		if identity.IsReserved(id) || c.index.local(id) {
			continue
		}
		for _, dir := range []Direction{Ingress, Egress} {
			if rules[dir] == 0 {
				rules[dir] = c.ids.add(Rule{
					Kind: RuleUnknownSubject, Direction: dir, Index: -1,
					Text: "the labels of the pod's identity are not known (yet), so no policy can be matched",
				})
			}
			key := SubjectKey{id, dir}
			c.out.Subjects[key] = Subject{Isolated: true, DefaultRule: rules[dir]}
			c.out.Isolation[key] = []uint32{rules[dir]}
		}
	}
}
