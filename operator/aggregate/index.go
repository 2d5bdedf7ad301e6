// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package aggregate sums up what the agents of this cluster's nodes report: on how many nodes each policy and each
// PolicySource is in force, which nodes fail, how many tunnels to each cluster are up.
//
//	Nodes, MeshNodes ──────────┐
//	exported policies ─────────┼──► Index ──► TakeDirty: what may have changed; Policy, Source, Tunnels: the sums
//	PolicySources' inventories ┘
//
// A report is compared with the one before it, and only what differs is counted anew: a node that realizes one more policy
// costs that policy's counters, whatever the number of nodes and policies. The package is pure; an Index must not be used by
// two goroutines at once.
package aggregate

import (
	"cmp"
	"iter"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Index holds the sums.
type Index struct {
	nodes    map[string]*node
	existing int // nodes of which there is a Node
	agents   int // nodes of which there is a MeshNode

	policies map[string]*policy
	sources  map[SourceName]*source
	tunnels  map[string]*tunnels

	dirtyPolicies map[string]struct{}
	dirtySources  map[SourceName]struct{}
}

// SourceName names a PolicySource.
type SourceName struct{ Namespace, Name string }

// New makes an empty Index.
func New() *Index {
	return &Index{
		nodes: map[string]*node{}, policies: map[string]*policy{}, sources: map[SourceName]*source{}, tunnels: map[string]*tunnels{},
		dirtyPolicies: map[string]struct{}{}, dirtySources: map[SourceName]struct{}{},
	}
}

// node is a name of which there is a Node, a MeshNode or both.
type node struct {
	exists bool
	agent  *v1alpha1.MeshNode
	// counted is what the agent reported of policies, by key, if the node exists: reports of others don't count.
	counted []v1alpha1.NodePolicy
}

// SetNode says whether there is a Node. It returns whether that is news.
func (x *Index) SetNode(name string, exists bool) bool {
	n := x.node(name)
	if n.exists == exists {
		x.forget(name)
		return false
	}
	n.exists = exists
	x.existing += change(exists)
	x.recount(name, n)
	// Every status shows the number of nodes.
	for key, p := range x.policies {
		if p.exported {
			x.dirtyPolicies[key] = struct{}{}
		}
	}
	x.touchSources()
	x.forget(name)
	return true
}

// SetAgent takes what a node's agent reported; nil: the MeshNode is gone. The object must not be changed afterwards.
func (x *Index) SetAgent(name string, agent *v1alpha1.MeshNode) {
	n := x.node(name)
	x.exchangePeers(n.agent, agent)
	if (n.agent == nil) != (agent == nil) {
		x.agents += change(agent != nil)
		x.touchSources() // a source without policies is in force wherever there is an agent
	}
	n.agent = agent
	x.recount(name, n)
	x.forget(name)
}

// Node is what is known of a node.
type Node struct {
	Exists bool               // there is a Node
	Agent  *v1alpha1.MeshNode // nil: there is none. It must not be changed.
}

// Nodes goes over all names of which there is a Node or a MeshNode, in no order.
func (x *Index) Nodes() iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		for name, n := range x.nodes {
			if !yield(name, Node{n.exists, n.agent}) {
				return
			}
		}
	}
}

// TakeDirty gives the keys of exported policies and the names of PolicySources whose sums may have changed since they were
// last taken, in no order.
func (x *Index) TakeDirty() (policies []string, sources []SourceName) {
	for key := range x.dirtyPolicies {
		policies = append(policies, key)
	}
	for name := range x.dirtySources {
		sources = append(sources, name)
	}
	clear(x.dirtyPolicies)
	clear(x.dirtySources)
	return policies, sources
}

func (x *Index) node(name string) *node {
	n := x.nodes[name]
	if n == nil {
		n = &node{}
		x.nodes[name] = n
	}
	return n
}

func (x *Index) forget(name string) {
	if n := x.nodes[name]; !n.exists && n.agent == nil {
		delete(x.nodes, name)
	}
}

// recount moves the counters from what was counted of a node to what counts now.
func (x *Index) recount(name string, n *node) {
	was := n.counted
	n.counted = nil
	if n.exists && n.agent != nil {
		n.counted = byKey(n.agent.Status.Policies)
	}
	is := n.counted
	for len(was) > 0 || len(is) > 0 {
		switch order := firstKeys(was, is); {
		case order < 0:
			x.move(name, &was[0], nil)
			was = was[1:]
		case order > 0:
			x.move(name, nil, &is[0])
			is = is[1:]
		default:
			if was[0] != is[0] {
				x.move(name, &was[0], &is[0])
			}
			was, is = was[1:], is[1:]
		}
	}
}

// firstKeys compares the first keys of two lists; an empty list comes last.
func firstKeys(a, b []v1alpha1.NodePolicy) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return cmp.Compare(a[0].Key, b[0].Key)
}

// byKey gives a list in the order of its keys, each once. Reports are written that way, so this is rarely more than a look.
func byKey(list []v1alpha1.NodePolicy) []v1alpha1.NodePolicy {
	for i := 1; i < len(list); i++ {
		if list[i-1].Key >= list[i].Key {
			list = slices.Clone(list)
			slices.SortStableFunc(list, func(a, b v1alpha1.NodePolicy) int { return cmp.Compare(a.Key, b.Key) })
			return slices.CompactFunc(list, func(a, b v1alpha1.NodePolicy) bool { return a.Key == b.Key })
		}
	}
	return list
}

// reported finds what a node reports of a policy; nil: nothing.
func (n *node) reported(key string) *v1alpha1.NodePolicy {
	i, found := slices.BinarySearchFunc(n.counted, key, func(p v1alpha1.NodePolicy, key string) int { return cmp.Compare(p.Key, key) })
	if !found {
		return nil
	}
	return &n.counted[i]
}

// move counts one node's new report of one policy instead of the one before.
func (x *Index) move(node string, was, is *v1alpha1.NodePolicy) {
	key := cmp.Or(was, is).Key
	p := x.policy(key)
	if p.exported {
		x.dirtyPolicies[key] = struct{}{}
	}
	p.remove(node, was)
	p.add(node, is)
	for name, s := range p.sources {
		x.dirtySources[name] = struct{}{}
		s.remove(node, was)
		s.add(node, is)
	}
	x.forgetPolicy(key)
}

func change(more bool) int {
	if more {
		return 1
	}
	return -1
}
