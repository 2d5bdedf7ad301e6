// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"maps"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// source counts, for each node, how many of a PolicySource's policies are at which revision.
type source struct {
	revision string
	keys     map[string]struct{}
	nodes    map[string]*progress // those that report any of its policies
}

// progress of one node with the policies of one source.
type progress struct {
	at      map[string]int // policies without an error, by revision
	failing int            // policies with one
}

// SetSource says which policies a PolicySource applied, by their records' keys, and at which revision.
func (x *Index) SetSource(name SourceName, revision string, keys []string) {
	s := x.sources[name]
	if s == nil {
		s = &source{keys: map[string]struct{}{}, nodes: map[string]*progress{}}
		x.sources[name] = s
		x.dirtySources[name] = struct{}{}
	}
	if s.revision != revision {
		s.revision = revision
		x.dirtySources[name] = struct{}{}
	}
	now := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		now[key] = struct{}{}
	}
	for key := range s.keys {
		if _, still := now[key]; !still {
			x.removeKey(name, s, key)
		}
	}
	for key := range now {
		if _, already := s.keys[key]; !already {
			x.addKey(name, s, key)
		}
	}
}

// RemoveSource forgets a PolicySource that is gone.
func (x *Index) RemoveSource(name SourceName) {
	s := x.sources[name]
	if s == nil {
		return
	}
	for key := range s.keys {
		x.removeKey(name, s, key)
	}
	delete(x.sources, name)
	delete(x.dirtySources, name)
}

// Source counts the nodes on which every policy of a source is at the source's revision. Nodes with an error fail.
func (x *Index) Source(name SourceName) v1alpha1.PolicyNodes {
	out := v1alpha1.PolicyNodes{Total: int32(x.existing)}
	s := x.sources[name]
	if s == nil {
		return out
	}
	failing := map[string]struct{}{}
	for nodeName, n := range x.nodes {
		if !n.exists || n.agent == nil {
			continue
		}
		p := s.nodes[nodeName]
		switch {
		case p == nil && len(s.keys) == 0:
			out.Realized++
		case p == nil:
		case p.failing > 0:
			failing[nodeName] = struct{}{}
		case p.at[s.revision] == len(s.keys):
			out.Realized++
		}
	}
	if len(failing) > 0 {
		out.Failing = firstNames(maps.Keys(failing))
	}
	return out
}

func (x *Index) addKey(name SourceName, s *source, key string) {
	x.dirtySources[name] = struct{}{}
	s.keys[key] = struct{}{}
	p := x.policy(key)
	if p.sources == nil {
		p.sources = map[SourceName]*source{}
	}
	p.sources[name] = s
	if !p.isReported() {
		return // as of most keys that are new: the inventory is written before the policies
	}
	for nodeName, n := range x.nodes {
		s.add(nodeName, n.reported(key))
	}
}

func (x *Index) removeKey(name SourceName, s *source, key string) {
	x.dirtySources[name] = struct{}{}
	delete(s.keys, key)
	p := x.policies[key]
	delete(p.sources, name)
	if p.isReported() {
		for nodeName, n := range x.nodes {
			s.remove(nodeName, n.reported(key))
		}
	}
	x.forgetPolicy(key)
}

func (x *Index) touchSources() {
	for name := range x.sources {
		x.dirtySources[name] = struct{}{}
	}
}

func (s *source) add(node string, is *v1alpha1.NodePolicy) {
	if is == nil {
		return
	}
	p := s.nodes[node]
	if p == nil {
		p = &progress{at: map[string]int{}}
		s.nodes[node] = p
	}
	if is.Error != "" {
		p.failing++
		return
	}
	p.at[is.Revision]++
}

func (s *source) remove(node string, was *v1alpha1.NodePolicy) {
	if was == nil {
		return
	}
	p := s.nodes[node]
	if was.Error != "" {
		p.failing--
	} else {
		decrement(p.at, was.Revision)
	}
	if p.failing == 0 && len(p.at) == 0 {
		delete(s.nodes, node)
	}
}
