// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"hash/maphash"
	"maps"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// source compares, for each node, what the node reports of a PolicySource's policies with what agents were given. It holds
// sums and not lists: a new version of a policy costs one subtraction and one addition, however many nodes there are.
type source struct {
	revision string
	keys     map[string]struct{}
	want     sum
	current  int                  // policies that agents were given at the source's revision
	nodes    map[string]*progress // those that report any of its policies
}

// progress of one node with the policies of one source.
type progress struct {
	is      sum // of policies without an error
	failing int // policies with one
}

// sum of versions of policies. Two are equal if they are sums of the same versions; that others have an equal sum is as likely
// as guessing 64 bits, and nobody who writes policies knows the seed.
type sum struct {
	policies int
	hashes   uint64
}

var seed = maphash.MakeSeed()

func (s *sum) add(key string, v Version) {
	s.policies++
	s.hashes += maphash.Comparable(seed, keyVersion{key, v})
}

func (s *sum) remove(key string, v Version) {
	s.policies--
	s.hashes -= maphash.Comparable(seed, keyVersion{key, v})
}

type keyVersion struct {
	key string
	Version
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
		s.revision, s.current = revision, 0
		for key := range s.keys {
			s.current += s.isCurrent(x.policies[key])
		}
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

// Source counts the nodes on which every policy of a source is as it is at the source's revision. Nodes with an error fail.
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
		case s.current == len(s.keys) && p.is == s.want:
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
	s.wantAlso(key, p)
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
	s.unwant(key, p)
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

// wantAlso counts what agents are given of one of the source's policies.
func (s *source) wantAlso(key string, p *policy) {
	if p.exported {
		s.want.add(key, p.want.Version)
		s.current += s.isCurrent(p)
	}
}

// unwant takes back what wantAlso counted.
func (s *source) unwant(key string, p *policy) {
	if p.exported {
		s.want.remove(key, p.want.Version)
		s.current -= s.isCurrent(p)
	}
}

func (s *source) isCurrent(p *policy) int {
	if p.exported && p.want.Revision == s.revision && p.want.Content != "" {
		return 1
	}
	return 0
}

func (s *source) add(node string, is *v1alpha1.NodePolicy) {
	if is == nil {
		return
	}
	p := s.nodes[node]
	if p == nil {
		p = &progress{}
		s.nodes[node] = p
	}
	if is.Error != "" {
		p.failing++
		return
	}
	p.is.add(is.Key, versionOf(is))
}

func (s *source) remove(node string, was *v1alpha1.NodePolicy) {
	if was == nil {
		return
	}
	p := s.nodes[node]
	if was.Error != "" {
		p.failing--
	} else {
		p.is.remove(was.Key, versionOf(was))
	}
	if p.failing == 0 && p.is.policies == 0 {
		delete(s.nodes, node)
	}
}
