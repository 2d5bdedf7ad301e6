// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Engine keeps what the datapath's maps should hold, and changes it by what changes: a Step costs what its inputs touch.
// It is not safe for concurrent use. Inputs take effect with the next Step.
//
// The first Step after a restart takes everything that is not set by then as gone.
type Engine struct {
	inputs   inputs
	clusters *clusters
	index    *index
	named    map[uint32]map[string][]uint16
	callers  map[string]map[uint32]struct{} // port name → identities that have it
	names    named
	policies *policies
	specs    map[string][]string // policy → keys of its models beside the first
	rules    *registry

	subjects   map[uint32]*subject
	profiles   map[string]*profile
	seq        uint64
	unfinished map[*profile]struct{}
	pending    map[*subject]struct{} // with a row that may change
	rows       map[SubjectKey]Subject
	rowless    map[SubjectKey]struct{} // for which the map has no room

	sets     map[string]*set
	byBit    [SetCount]*set
	bits     *pool
	held     map[string]int // bits by owner
	bitless  map[*set]struct{}
	idle     map[*set]struct{} // that may have no user any more
	freeing  []uint16          // bits that nothing refers to after the switch
	adopt    map[uint64]uint16 // bits that the kernel holds, by the hash of the selector
	terms    *terms
	families map[string]*family
	byPort   map[string][]*family
	redraft  map[*profile]struct{} // of families with other numbers
	lonely   map[*family]struct{}  // that may have no user any more

	classes *classes
	groups  *groups
	cidrs   *cidrs
	world   *ident
	// remoteNode is every other node of the mesh, and host this one.
	remoteNode, host *ident
	changed          map[*ident]struct{} // placed identities that may have changed sides
	waiting          map[*ident]struct{} // without a class, because there was no room
	arrived          map[*ident]struct{} // to be placed for the first time
	ghosts           map[uint32]*ident   // that the kernel holds, until the first Step
	strays           strays

	gone    map[uint32]struct{} // identities with rows that went since the last switch
	limits  Limits
	forget  bool
	started bool
	unsure  bool // the kernel held something at the start, and flows did not forget yet
	roomy   bool // the step before gave back chunks of groups
}

// NewEngine starts from what the kernel remembers. It knows of nothing else yet.
func NewEngine(c Config) *Engine {
	c.Limits.Sets = min(c.Limits.Sets, SetCount)
	e := &Engine{
		inputs: newInputs(), clusters: newClusters(c.Cluster),
		names: named{cluster: c.Cluster, node: c.Node, nodes: map[string]Node{}, services: map[ServiceName]map[string]Service{}},
		named: map[uint32]map[string][]uint16{}, callers: map[string]map[uint32]struct{}{},
		policies: newPolicies(), specs: map[string][]string{}, rules: newRegistry(),
		subjects: map[uint32]*subject{}, profiles: map[string]*profile{},
		unfinished: map[*profile]struct{}{}, pending: map[*subject]struct{}{},
		rows: map[SubjectKey]Subject{}, rowless: map[SubjectKey]struct{}{},
		sets: map[string]*set{}, held: map[string]int{}, bitless: map[*set]struct{}{}, idle: map[*set]struct{}{}, adopt: map[uint64]uint16{},
		terms: newTerms(), families: map[string]*family{}, byPort: map[string][]*family{},
		redraft: map[*profile]struct{}{}, lonely: map[*family]struct{}{},
		cidrs: newCIDRs(c.Limits.CIDRs), world: &ident{id: identity.World}, remoteNode: &ident{id: identity.RemoteNode}, host: &ident{id: identity.Host},
		changed: map[*ident]struct{}{}, waiting: map[*ident]struct{}{}, arrived: map[*ident]struct{}{}, ghosts: map[uint32]*ident{},
		gone: map[uint32]struct{}{}, limits: c.Limits,
	}
	e.index = newIndex(e.clusters)
	e.restore(&c.Remembered)
	return e
}

// Problems are what authors of policies and the node's administrator should know, sorted by policy.
func (e *Engine) Problems() []Problem {
	var out []Problem
	for _, p := range e.policies.inTrouble() {
		out = append(out, p.model.ownProblems()...)
		if p.problem != "" {
			out = append(out, Problem{PolicyKey: p.model.Key(), Message: p.problem})
		}
	}
	out = append(out, e.roomProblems()...)
	slices.SortStableFunc(out, func(a, b Problem) int { return cmp.Compare(a.PolicyKey, b.PolicyKey) })
	return out
}

// PolicySubjects counts the identities of the local cluster that a policy selects; false if the policy does not apply to
// this cluster, or its subjects can't be read.
func (e *Engine) PolicySubjects(key string) (n int, applies bool) {
	p := e.policies.byKey[key]
	if p == nil {
		return 0, false
	}
	if len(p.source.more) == 0 {
		return p.selected, p.applies
	}
	e.seq++
	for _, m := range p.source.all() {
		p := e.policies.byKey[m.key]
		if applies = applies || p.applies; !p.applies {
			continue
		}
		for _, i := range e.index.find(&p.model.subjects, true) {
			if i.seen != e.seq {
				i.seen = e.seq
				n++
			}
		}
	}
	return n, applies
}

// CIDRs are the ranges that sets in use name, with their identities.
func (e *Engine) CIDRs() map[netip.Prefix]uint32 {
	out := make(map[netip.Prefix]uint32, e.cidrs.byPrefix.Size())
	for p, c := range e.cidrs.byPrefix.All() {
		out[p] = c.id
	}
	return out
}

// Stats says how much of the datapath's maps is in use.
func (e *Engine) Stats() Stats {
	return Stats{
		Sets: e.bits.used + 1, Classes: e.classes.pool.used + 1, Identities: e.classes.placed, Groups: len(e.groups.byID),
		Chunks: e.groups.chunks, Subjects: len(e.rows),
	}
}

// Stats are numbers of rows, to be held against Limits.
type Stats struct{ Sets, Classes, Identities, Groups, Chunks, Subjects int }

// inputs are what was set since the last Step.
type inputs struct {
	clusters   map[string]map[string]string
	identities map[uint32]map[string]string
	ports      map[uint32]map[string][]uint16
	nodes      map[string]*Node
	services   map[ServiceName]map[string]Service
	policies   map[string]*Model
	subjects   map[uint32]bool
}

func newInputs() inputs {
	return inputs{
		clusters: map[string]map[string]string{}, identities: map[uint32]map[string]string{},
		ports: map[uint32]map[string][]uint16{}, nodes: map[string]*Node{}, services: map[ServiceName]map[string]Service{}, policies: map[string]*Model{}, subjects: map[uint32]bool{},
	}
}

// SetCluster sets the labels of a cluster, which may be empty; nil removes it.
func (e *Engine) SetCluster(name string, labels map[string]string) { e.inputs.clusters[name] = labels }

// SetIdentity sets the labels of a pod identity of any cluster (see identity.PodLabels); nil removes it. The map must not
// change afterwards.
func (e *Engine) SetIdentity(id uint32, labels map[string]string) {
	if identity.IsPod(id) {
		e.inputs.identities[id] = labels
	}
}

// SetNamedPorts sets which numbers the pods of an identity give the names of ports: "name/TCP" → numbers, ascending. nil
// removes them. The map must not change afterwards.
func (e *Engine) SetNamedPorts(id uint32, named map[string][]uint16) { e.inputs.ports[id] = named }

// SetPolicy sets a policy of the local cluster under its Model.Key; nil removes it.
func (e *Engine) SetPolicy(key string, m *Model) {
	for _, more := range e.specs[key] {
		e.inputs.policies[more] = nil
	}
	delete(e.specs, key)
	e.inputs.policies[key] = m
	if m == nil || len(m.more) == 0 {
		return
	}
	for _, more := range m.more {
		e.inputs.policies[more.key] = more
		e.specs[key] = append(e.specs[key], more.key)
	}
}

// SetSubject says whether pods of this node have an identity. Such an identity has a row for each direction, whether or not
// a policy selects it.
func (e *Engine) SetSubject(id uint32, present bool) {
	if identity.IsPod(id) {
		e.inputs.subjects[id] = present
	}
}

// ascending returns the keys of a set of identities in an order that does not depend on the map's.
func ascending(m map[*ident]struct{}) []*ident {
	return slices.SortedFunc(maps.Keys(m), func(a, b *ident) int { return cmp.Compare(a.id, b.id) })
}
