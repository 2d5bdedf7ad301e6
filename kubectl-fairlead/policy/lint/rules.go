// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// budget is how many connections are judged for a rule before it is said that it can't be told.
const budget = 200_000

// rules looks at each rule. One that was found redundant is gone for those after it, so that of two equal rules one stays.
func (l *linter) rules() {
	gone := map[string]bool{} // rules by policy and place
	for _, p := range l.cluster.Policies {
		if len(p.Model.Problems()) > 0 {
			continue // what is not in force as it is written has its own finding
		}
		if !l.applies(p) {
			continue
		}
		all := rulesOf(policy.NewReference(&policy.World{Cluster: l.cluster.Name, Policies: []*policy.Model{p.Model}}), p.Model.Key())
		for i := len(all) - 1; i >= 0; i-- { // from behind, so that places before it stay
			if !all[i].Audit { // in Audit mode a rule is to change nothing
				l.rule(p, all[i], gone)
			}
		}
	}
}

// related are the policies that may have a say where p has: those of its namespace, and those of all, whatever their tier.
func (l *linter) related(p *world.Policy) []*world.Policy {
	var out []*world.Policy
	for _, q := range l.cluster.Policies {
		if p.Record.Namespace == "" || q.Record.Namespace == "" || q.Record.Namespace == p.Record.Namespace {
			out = append(out, q)
		}
	}
	return out
}

func (l *linter) rule(p *world.Policy, r policy.Rule, gone map[string]bool) {
	place := world.Place(r)
	skip := func(why string) {
		l.find(CodeNotJudged, p, place, world.Fields(r), "whether a verdict rests on the rule can't be told: "+why, "nothing, or make the policy simpler")
	}
	less, ok := l.minus(p, r, gone)
	if !ok {
		skip("it can't be taken out by itself")
		return
	}
	subjects, rules := &words{}, &words{}
	var with, sans []*policy.Model
	var homes []string
	for _, q := range l.related(p) {
		if ns := q.Record.Namespace; ns != "" && !slices.Contains(homes, ns) {
			homes = append(homes, ns)
		}
		subjects.add(subjectsOf(q))
		rules.add(specOf(q)[r.Direction.String()])
		rules.add(cilium(q))
		m := l.left(q, gone)
		with = append(with, m)
		if q == p {
			m = less
		}
		sans = append(sans, m)
	}
	s, why := makeSample(l.cluster, subjects, rules, homes)
	if why != "" {
		skip(why)
		return
	}
	alone := []*policy.Model{l.left(p, gone)}
	s.keep(alone[0])
	out := maps.Clone(gone)
	out[p.Model.Key()+" "+place] = true
	v := verdicts{rule: r, out: out, left: budget, covers: map[string]bool{}, opposed: true, isolate: true}
	sets := together(s.names)
	if len(sets)*len(s.subjects)*len(s.peers) > 4*budget {
		skip(tooMany)
		return
	}
	for _, names := range sets {
		v.solo, v.full, v.less = s.reference(alone, names), s.reference(with, names), s.reference(sans, names)
		if v.bare == nil {
			v.bare = v.less // the first set has no names
		}
		v.compare(&s)
		if v.needed || v.left < 0 {
			break
		}
	}
	if v.left < 0 {
		skip("it would take too many connections to try")
		return
	}
	l.conclude(p, r, &v, gone)
	if v.matches > 0 {
		l.peers(p, r, &s)
	}
}

// minus is the policy without a rule, and without those that are gone already.
func (l *linter) minus(p *world.Policy, r policy.Rule, gone map[string]bool) (*policy.Model, bool) {
	m, ok := without(p, r)
	if !ok || !anyGone(p, gone) {
		return m, ok
	}
	own := map[string]bool{world.Place(r): true}
	for key := range gone {
		if place, is := strings.CutPrefix(key, p.Model.Key()+" "); is {
			own[place] = true
		}
	}
	return shrink(p, own), true
}

// left is the policy without the rules that are gone.
func (l *linter) left(p *world.Policy, gone map[string]bool) *policy.Model {
	if !anyGone(p, gone) {
		return p.Model
	}
	own := map[string]bool{}
	for key := range gone {
		if place, is := strings.CutPrefix(key, p.Model.Key()+" "); is {
			own[place] = true
		}
	}
	return shrink(p, own)
}

func anyGone(p *world.Policy, gone map[string]bool) bool {
	for key := range gone {
		if strings.HasPrefix(key, p.Model.Key()+" ") {
			return true
		}
	}
	return false
}

// shrink takes rules out, from behind.
func shrink(p *world.Policy, places map[string]bool) *policy.Model {
	now := *p
	all := rulesOf(policy.NewReference(&policy.World{Policies: []*policy.Model{p.Model}}), p.Model.Key())
	for _, r := range slices.Backward(all) {
		if !places[world.Place(r)] {
			continue
		}
		spec, at, set := list(&now, r)
		if spec == nil {
			continue
		}
		set(slices.Delete(slices.Clone(at), r.Index, r.Index+1))
		if _, has := spec["policyTypes"]; !has && p.Record.PolicyKind == policy.KindNetworkPolicy && r.Direction == policy.Egress {
			spec["policyTypes"] = []any{"Ingress", "Egress"}
		}
		rec := *p.Record
		now.Model = parse(&now, spec)
		rec.Spec = specText(spec)
		now.Record = &rec
	}
	return now.Model
}

// cilium is all of a policy of Cilium's: its rules lie deeper, and no sample is sure to tell them apart.
func cilium(p *world.Policy) map[string]any {
	if kind, _ := v1alpha1.PolicyKindNamed(p.Record.PolicyKind); !kind.OnRequest {
		return nil
	}
	return specOf(p)
}

// subjectsOf is the part of a spec that says whom the policy is about.
func subjectsOf(p *world.Policy) map[string]any {
	spec := specOf(p)
	delete(spec, "ingress")
	delete(spec, "egress")
	delete(spec, "clusterSelector") // in which clusters the policy applies
	return spec
}

// verdicts of connections that a rule matches: with it, without it.
type verdicts struct {
	rule             policy.Rule
	out              map[string]bool // rules that were taken out, by policy and place
	solo, full, less *policy.Reference
	bare             *policy.Reference // less, where no port has a name

	left    int // of the budget; below 0: used up
	matches int
	needed  bool // some verdict rests on the rule
	unknown bool // one about a peer that nobody knows does, who could be anybody
	decides bool
	own     policy.Verdict
	covers  map[string]bool // what decides without it; empty text: no policy does
	opposed bool            // always another decides, and otherwise
	isolate bool            // only isolation decides without it
	// later says that without it a later tier decides, somewhere. That is others' to change: a rule of an earlier tier stands
	// guard against it, and is not for nothing.
	later bool
}

func (v *verdicts) compare(s *sample) {
	pairs, ports := s.matching(v.solo, v.rule)
	for _, pair := range pairs {
		for _, port := range ports {
			if v.left--; v.left < 0 {
				return
			}
			if v.try(join(pair, port)); v.needed {
				return
			}
		}
	}
}

// try a connection.
func (v *verdicts) try(c policy.Connection) {
	match, is := matching(v.solo.Explain(c), v.rule)
	if !is {
		return
	}
	v.matches++
	full, less := v.full.Explain(c), v.less.Explain(c)
	switch changes := full.Verdict != less.Verdict; {
	case c.Peer == identity.Unknown:
		v.unknown = v.unknown || changes || !sameDecision(less, v.bare.Explain(c))
		return
	case changes:
		v.needed = true
		return
	}
	v.own = match.Verdict
	if v.own == policy.Pass && v.rule.Tier == policy.TierBaseline {
		v.own = policy.Allow // there is no tier to pass to
	}
	decides := decidedBy(full, v.rule)
	v.decides = v.decides || decides
	skipped := v.rule.Tier == policy.TierAdmin && !decides && full.Passed != nil // an earlier pass leaves it to the next tier
	v.opposed = v.opposed && (skipped || full.Verdict != v.own)
	v.isolate = v.isolate && less.Rule != nil && less.Rule.Index < 0
	by := less.Rule
	if skipped {
		by = full.Passed
	}
	if by == nil {
		v.covers[""] = true
		v.later = v.later || decides && v.rule.Tier == policy.TierAdmin
		return
	}
	v.covers[world.PolicyName(by.PolicyKey)+", "+world.Place(asWritten(*by, v.out))] = true
	v.later = v.later || decides && asked(by.Tier) > asked(v.rule.Tier)
}

// sameDecision says whether two explanations come to the same by the same rules. A name gives a rule the ports that its own peers
// call so, and who they are is the mesh's: about somebody unknown, of two rules with one name either may match alone. The sample
// has them match both or none. If both ways the same rules decide, they do so whichever match.
func sameDecision(a, b policy.Explanation) bool {
	equal := func(a, b *policy.Rule) bool { return a == nil && b == nil || a != nil && b != nil && same(*a, *b) }
	return equal(a.Rule, b.Rule) && equal(a.Passed, b.Passed)
}

// decidedBy says whether a rule decided, or left a connection to the next tier.
func decidedBy(e policy.Explanation, r policy.Rule) bool {
	return e.Rule != nil && same(*e.Rule, r) || e.Passed != nil && same(*e.Passed, r)
}

// asked is the place of a tier in the order in which they are asked.
func asked(t policy.Tier) int {
	return map[policy.Tier]int{policy.TierAdmin: 0, policy.TierNamespace: 1, policy.TierBaseline: 2}[t]
}

// asWritten gives a rule the index that it has where nothing was taken out of its list.
func asWritten(r policy.Rule, out map[string]bool) policy.Rule {
	was := r
	for was.Index = 0; r.Index >= 0; was.Index++ {
		switch {
		case takenOut(was, out):
		case r.Index == 0:
			return was
		default:
			r.Index--
		}
	}
	return r
}

// takenOut says whether the element at a rule's index was taken out of its list.
func takenOut(r policy.Rule, out map[string]bool) bool {
	kinds := []policy.RuleKind{r.Kind}
	if oneList(r.PolicyKey) {
		kinds = []policy.RuleKind{policy.RuleAllow, policy.RuleDeny, policy.RulePass}
	}
	return slices.ContainsFunc(kinds, func(kind policy.RuleKind) bool {
		r.Kind = kind
		return out[r.PolicyKey+" "+world.Place(r)]
	})
}

func same(a, b policy.Rule) bool {
	return a.PolicyKey == b.PolicyKey && world.Place(a) == world.Place(b)
}

func matching(e policy.Explanation, r policy.Rule) (policy.Match, bool) {
	i := slices.IndexFunc(e.Matches, func(m policy.Match) bool { return same(m.Rule, r) })
	if i < 0 {
		return policy.Match{}, false
	}
	return e.Matches[i], true
}

func (l *linter) conclude(p *world.Policy, r policy.Rule, v *verdicts, gone map[string]bool) {
	place, fields := world.Place(r), world.Fields(r)
	var by []string
	for _, c := range sortedKeys(v.covers) {
		if c != "" {
			by = append(by, c)
		}
	}
	switch {
	case v.matches == 0:
		l.find(CodeNeverMatches, p, place, fields, fmt.Sprintf("no connection can match the rule: %s", r.Text), "correct its peers and ports, or delete it")
	case v.needed, v.later:
	case v.unknown && v.opposed && !v.decides:
		l.find(CodeOnlyUnknown, p, place, fields, fmt.Sprintf("the rule (%s) decides only about peers that nobody knows: about those that it names %s always decides otherwise", r.Text, strings.Join(by, "; ")),
			"see which of the two is meant to be asked first")
	case v.unknown:
	case v.opposed && !v.decides:
		l.find(CodeShadowed, p, place, fields, fmt.Sprintf("the rule (%s) never decides: %s always decides otherwise", r.Text, strings.Join(by, "; ")),
			"delete the one that is not meant")
		gone[p.Model.Key()+" "+place] = true
	case v.isolate && v.own == policy.Deny:
		l.find(CodeDenyDefault, p, place, fields, fmt.Sprintf("the rule (%s) denies what %s denies anyway", r.Text, strings.Join(by, "; ")),
			"nothing, if it is to stand guard against rules to come")
	default:
		why := strings.Join(by, "; ") + " decides the same"
		if len(by) == 0 {
			why = "nothing is denied there anyway"
		}
		l.find(CodeRedundant, p, place, fields, fmt.Sprintf("no verdict rests on the rule (%s): %s", r.Text, why), "delete one of them")
		gone[p.Model.Key()+" "+place] = true
	}
}
