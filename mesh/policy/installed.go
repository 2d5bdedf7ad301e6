// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// installed is a policy as the Engine holds it.
type installed struct {
	source   *Model // as it was set
	model    *Model // with what it names
	outdated bool   // these are others now
	ids      *ruleIDs
	seq      uint64 // another one whenever its lines may differ
	applies  bool   // to the local cluster
	problem  string
	selected int // identities of the local cluster
}

// policies are found by key, and by the namespace that their subjects are in; empty for all namespaces.
type policies struct {
	byKey       map[string]*installed
	byNamespace map[string][]*installed
	troubled    map[*installed]struct{} // whose authors should know something
	onNodes     map[*installed]struct{} // that name nodes
	onServices  map[ServiceName]map[*installed]struct{}
}

func newPolicies() *policies {
	return &policies{
		byKey: map[string]*installed{}, byNamespace: map[string][]*installed{}, troubled: map[*installed]struct{}{},
		onNodes: map[*installed]struct{}{}, onServices: map[ServiceName]map[*installed]struct{}{},
	}
}

// inTrouble are the troubled ones, in the order of their keys.
func (p *policies) inTrouble() []*installed {
	return slices.SortedFunc(maps.Keys(p.troubled), func(a, b *installed) int { return cmp.Compare(a.model.key, b.model.key) })
}

func (p *policies) add(n *installed) {
	p.byKey[n.model.key] = n
	if len(n.source.nodeSelectors()) > 0 {
		p.onNodes[n] = struct{}{}
	}
	for _, name := range n.source.serviceNames() {
		if p.onServices[name] == nil {
			p.onServices[name] = map[*installed]struct{}{}
		}
		p.onServices[name][n] = struct{}{}
	}
	ns := n.model.subjects.namespace
	p.byNamespace[ns] = append(p.byNamespace[ns], n)
}

func (p *policies) remove(n *installed) {
	delete(p.byKey, n.model.key)
	delete(p.troubled, n)
	delete(p.onNodes, n)
	for _, name := range n.source.serviceNames() {
		if delete(p.onServices[name], n); len(p.onServices[name]) == 0 {
			delete(p.onServices, name)
		}
	}
	ns := n.model.subjects.namespace
	p.byNamespace[ns] = slices.DeleteFunc(p.byNamespace[ns], func(o *installed) bool { return o == n })
	if len(p.byNamespace[ns]) == 0 {
		delete(p.byNamespace, ns)
	}
}

// selecting returns the policies that select an identity of the local cluster, in the order of their keys.
func (e *Engine) selecting(l labels.Set) []*installed {
	var out []*installed
	for _, list := range [][]*installed{e.policies.byNamespace[l[identity.LabelNamespace]], e.policies.byNamespace[""]} {
		for _, p := range list {
			if e.isSelected(p, l) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b *installed) int { return cmp.Compare(a.model.key, b.model.key) })
	return out
}

func (e *Engine) isSelected(p *installed, l labels.Set) bool {
	return p.applies && e.clusters.selects(&p.model.subjects, l, true)
}

// applyPolicies takes over policies that were set.
func (e *Engine) applyPolicies(d *Delta) {
	for _, key := range sortedKeys(e.inputs.policies) {
		m, old := e.inputs.policies[key], e.policies.byKey[key]
		if old != nil && old.source == m && !old.outdated || old == nil && m == nil {
			continue
		}
		if old != nil {
			e.uninstall(old, d)
		}
		if m != nil {
			e.install(m, d)
		}
	}
	if e.rules.moved && len(e.inputs.policies) > 0 {
		e.renumber(d)
	}
}

func (e *Engine) install(m *Model, d *Delta) {
	e.seq++
	p := &installed{source: m, model: e.names.resolve(m), seq: e.seq}
	p.ids = e.rules.register(p.model)
	for _, id := range p.ids.all() {
		rule := e.rules.rules[id]
		d.Rules[id] = &rule
	}
	e.policies.add(p)
	e.judge(p)
	for _, s := range e.subjects {
		if s.known() && e.isSelected(p, s.pod.labels) {
			s.insert(p)
			e.restale(s)
		}
	}
}

// judge finds out whether a policy applies, and how many subjects it has.
func (e *Engine) judge(p *installed) {
	p.applies, p.problem, p.selected = false, "", 0
	if !p.model.nobody {
		p.applies, p.problem = e.clusters.applies(p.model)
	}
	if p.applies {
		p.selected = len(e.index.find(&p.model.subjects, true))
	}
	if p.problem != "" || len(p.model.problems)+len(p.model.warnings) > 0 {
		e.policies.troubled[p] = struct{}{}
	} else {
		delete(e.policies.troubled, p)
	}
}

func (e *Engine) uninstall(p *installed, d *Delta) {
	e.policies.remove(p)
	e.rules.remove(p.ids)
	for _, id := range p.ids.all() {
		d.Rules[id] = nil
	}
	for _, s := range e.subjects {
		if s.drop(p) {
			e.restale(s)
		}
	}
}

// renumber gives all rules their ids anew, in the order of the policies' keys: the hashes of two rules collide, or did.
func (e *Engine) renumber(d *Delta) {
	before := e.rules.rules
	models := make([]*Model, 0, len(e.policies.byKey))
	for _, key := range sortedKeys(e.policies.byKey) {
		models = append(models, e.policies.byKey[key].model)
	}
	rules, ids := registerAll(models)
	e.rules = rules
	changedRules(before, rules.rules, d.Rules)
	for i, m := range models {
		p := e.policies.byKey[m.key]
		if p.ids.equal(ids[i]) {
			continue
		}
		p.ids = ids[i]
		e.seq++
		p.seq = e.seq
		for _, s := range e.subjects {
			if slices.Contains(s.policies, p) {
				e.restale(s)
			}
		}
	}
}
