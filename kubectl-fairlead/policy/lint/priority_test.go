// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/internal/anymesh"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// Where nothing is found about a pair of equal priorities, no verdict in a random mesh depends on their order.
func TestOrderOfEqualPriorities(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		m := anymesh.Draw(t)
		l := linter{mesh: m, cluster: m.Clusters["east"]}
		l.priorities()
		found += len(l.findings)
		for i, p := range l.cluster.Policies {
			for _, q := range l.cluster.Policies[i+1:] {
				if at := placeOf(p); at.tier == "" || at != placeOf(q) || len(p.Model.Problems())+len(q.Model.Problems()) > 0 || told(l.findings, p, q) {
					continue
				}
				in := func(models ...*policy.Model) *policy.Reference {
					w := m.World("east")
					w.Policies = models
					return policy.NewReference(w)
				}
				as, swapped := in(named(p, "a"), named(q, "b")), in(named(p, "b"), named(q, "a"))
				for _, c := range connections(m) {
					if a, b := as.Explain(c), swapped.Explain(c); a.Verdict != b.Verdict {
						t.Fatalf("%s and %s: %s and %s about %+v by order", p.Record.Spec, q.Record.Spec, a.Verdict, b.Verdict, c)
					}
				}
			}
		}
	})
	if found == 0 {
		t.Error("no random pair was found: the test proves nothing")
	}
}

func told(findings []Finding, p, q *world.Policy) bool {
	for _, f := range findings {
		about := f.Policy + " " + f.Message + " "
		if strings.Contains(about, world.PolicyName(p.Model.Key())+" ") && strings.Contains(about, world.PolicyName(q.Model.Key())+" ") {
			return true
		}
	}
	return false
}
