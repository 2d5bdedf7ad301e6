// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"slices"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// place of a policy in the order in which policies are asked; the tier is empty for those of namespaces.
type place struct {
	tier     string
	priority float64
}

func placeOf(p *world.Policy) place {
	spec := specOf(p)
	var out place
	out.tier, _ = spec["tier"].(string)
	out.priority, _ = spec["priority"].(float64)
	return out
}

// priorities finds pairs of policies with equal priorities of which it matters which one is asked first: their names decide
// that, which nobody expects who renames one.
func (l *linter) priorities() {
	tiers := map[place][]*world.Policy{}
	for _, p := range l.cluster.Policies {
		if at := placeOf(p); at.tier != "" && len(p.Model.Problems()) == 0 && l.applies(p) {
			tiers[at] = append(tiers[at], p)
		}
	}
	for _, p := range l.cluster.Policies {
		at := placeOf(p)
		for _, q := range tiers[at] {
			if slices.Contains(tiers[at], p) && p.Model.Key() < q.Model.Key() && l.orderMatters(p, q) {
				l.find(CodeEqualPriority, p, "", []string{"spec.priority"},
					fmt.Sprintf("%s has the same priority %v in tier %s and decides some connections otherwise; which is asked first is left to their names", world.PolicyName(q.Model.Key()), at.priority, at.tier),
					"give them different priorities")
			}
		}
	}
}

// orderMatters looks for a connection that two policies decide differently when they are asked in the other order.
func (l *linter) orderMatters(p, q *world.Policy) bool {
	first, second := named(p, "a"), named(q, "b")
	other, otherFirst := named(p, "b"), named(q, "a")
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		subjects, rules := &words{}, &words{}
		for _, of := range []*world.Policy{p, q} {
			subjects.add(subjectsOf(of))
			rules.add(specOf(of)[dir.String()])
		}
		s, why := makeSample(l.cluster, subjects, rules, nil)
		if why != "" {
			continue
		}
		s.keep(p.Model)
		s.keep(q.Model)
		left := budget
		for _, names := range together(s.names) {
			as := s.reference([]*policy.Model{first, second}, names)
			swapped := s.reference([]*policy.Model{other, otherFirst}, names)
			for _, subject := range s.subjects {
				for _, peer := range s.peers {
					for _, port := range s.ports {
						if left--; left < 0 {
							return false
						}
						c := join(pair(subject, peer, dir), port)
						a, b := as.Explain(c), swapped.Explain(c)
						if a.Verdict != b.Verdict || (a.Passed == nil) != (b.Passed == nil) {
							return true
						}
					}
				}
			}
		}
	}
	return false
}

// named is a policy by another name.
func named(p *world.Policy, name string) *policy.Model {
	rec := *p.Record
	rec.Name = name
	return policy.Parse(&rec)
}
