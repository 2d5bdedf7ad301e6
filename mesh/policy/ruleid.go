// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
)

// ruleIDs are the ids of a model's rules.
type ruleIDs struct {
	isolate [2]uint32
	rules   [2][]uint32 // as in direction.rules
}

func (r *ruleIDs) all() []uint32 {
	out := slices.Concat(r.rules[Ingress], r.rules[Egress])
	for _, id := range r.isolate {
		if id != 0 {
			out = append(out, id)
		}
	}
	return out
}

func (r *ruleIDs) equal(other *ruleIDs) bool {
	return r.isolate == other.isolate && slices.Equal(r.rules[Ingress], other.rules[Ingress]) && slices.Equal(r.rules[Egress], other.rules[Egress])
}

// Built-in rules, by direction.
var (
	unknownSubject = builtIn(RuleUnknownSubject, "the labels of the pod's identity are not known (yet), so no policy can be matched")
	noRoom         = builtIn(RuleNoRoom, "the policies of the pod have no room in the datapath's maps, so nothing is allowed")
)

func builtIn(kind RuleKind, text string) [2]Rule {
	var out [2]Rule
	for dir := range out {
		out[dir] = Rule{Kind: kind, Direction: Direction(dir), Index: -1, Text: text}
		out[dir].ID = ruleHash(&out[dir], 0)
	}
	return out
}

// registry gives rules their ids: a hash, so that an id stays the same as long as a rule keeps its place, whatever happens
// to other policies, and is the same on every node. Counters and events can be compared across nodes and restarts.
type registry struct {
	rules map[uint32]Rule
	// moved says that some rule has not the id of its hash, because another rule has it.
	moved bool
}

func newRegistry() *registry {
	r := &registry{rules: map[uint32]Rule{}}
	for _, rules := range [][2]Rule{unknownSubject, noRoom} {
		for _, rule := range rules {
			r.rules[rule.ID] = rule
		}
	}
	return r
}

// registerAll registers models in the order of their keys: where two hashes collide (1 in 4 billion for a pair), every node
// moves the same rule.
func registerAll(models []*Model) (*registry, []*ruleIDs) {
	order := slices.Clone(models)
	slices.SortFunc(order, func(a, b *Model) int { return cmp.Compare(a.key, b.key) })
	r, ids := newRegistry(), make(map[*Model]*ruleIDs, len(models))
	for _, m := range order {
		ids[m] = r.register(m)
	}
	out := make([]*ruleIDs, len(models))
	for i, m := range models {
		out[i] = ids[m]
	}
	return r, out
}

// register gives ids to all rules of a model.
func (g *registry) register(m *Model) *ruleIDs {
	ids := &ruleIDs{}
	for dir, d := range m.dirs {
		if d == nil {
			continue
		}
		base := Rule{
			PolicyKey: m.Key(), In: m.in, Namespace: m.rec.Namespace, Name: m.rec.Name, Direction: Direction(dir),
			Tier: m.tier, Audit: m.audit, Provenance: m.rec.Provenance,
		}
		if d.isolates {
			r := base
			r.Kind, r.Index, r.Text = RuleIsolate, -1, m.isolationText(Direction(dir))
			ids.isolate[dir] = g.add(r)
		}
		for i := range d.rules {
			r := base
			r.Kind, r.Index, r.Text = d.rules[i].kind, d.rules[i].index, d.rules[i].text
			ids.rules[dir] = append(ids.rules[dir], g.add(r))
		}
	}
	return ids
}

func (g *registry) add(r Rule) uint32 {
	for salt := 0; ; salt++ {
		id := ruleHash(&r, salt)
		if _, taken := g.rules[id]; id == 0 || taken {
			g.moved = true
			continue
		}
		r.ID = id
		g.rules[id] = r
		return id
	}
}

func (g *registry) remove(ids *ruleIDs) {
	for _, id := range ids.all() {
		delete(g.rules, id)
	}
}

func ruleHash(r *Rule, salt int) uint32 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s|%s|%s|%d", r.PolicyKey, r.Direction, r.Kind, r.Index)
	if r.In != "" {
		fmt.Fprintf(h, "|%s", r.In)
	}
	if salt > 0 {
		fmt.Fprintf(h, "|%d", salt)
	}
	return h.Sum32()
}

// changedRules compares two states of the registry: the rules of ids that differ, nil for those that are gone.
func changedRules(before, after map[uint32]Rule, out map[uint32]*Rule) {
	for id, r := range after {
		if old, had := before[id]; !had || old != r {
			out[id] = &r
		}
	}
	for id := range maps.Keys(before) {
		if _, has := after[id]; !has {
			out[id] = nil
		}
	}
}
