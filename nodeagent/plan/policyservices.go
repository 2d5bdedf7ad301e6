// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// namedServices tells the engine of the services that policies name, and of no others: of those, a change costs what clusters
// say of the one service.
type namedServices struct {
	cluster string
	engine  *policy.Engine
	planner *service.Planner
	by      map[string][]policy.ServiceName // policy's record key → services that it names
	uses    map[policy.ServiceName]int      // how many of these there are
	dirty   map[policy.ServiceName]struct{}
	nodes   map[netip.Addr]int // addresses of all clusters' nodes
}

func newNamedServices(cluster string, e *policy.Engine, p *service.Planner) *namedServices {
	return &namedServices{
		cluster: cluster, engine: e, planner: p, by: map[string][]policy.ServiceName{}, uses: map[policy.ServiceName]int{},
		dirty: map[policy.ServiceName]struct{}{}, nodes: map[netip.Addr]int{},
	}
}

// setPolicy notes the services that a policy names; nil: it is gone.
func (s *namedServices) setPolicy(key string, m *policy.Model) {
	was := s.by[key]
	delete(s.by, key)
	if m != nil {
		if names := m.ServiceNames(); len(names) > 0 {
			s.by[key] = names
		}
	}
	for _, name := range s.by[key] {
		s.uses[name]++
		s.dirty[name] = struct{}{}
	}
	for _, name := range was {
		if s.uses[name]--; s.uses[name] == 0 {
			delete(s.uses, name)
			s.dirty[name] = struct{}{}
		}
	}
}

// change says that a service or its slices are others; true if a policy names it.
func (s *namedServices) change(namespace, name string) bool {
	n := policy.ServiceName{Namespace: namespace, Name: name}
	if s.uses[n] == 0 {
		return false
	}
	s.dirty[n] = struct{}{}
	return true
}

// setNode notes which addresses are nodes'; true if any service may mean something else now.
func (s *namedServices) setNode(was, now *record.Node) bool {
	changed := false
	count := func(n *record.Node, by int) {
		if n == nil {
			return
		}
		for _, a := range n.Addresses {
			before := s.nodes[a.Unmap()]
			s.nodes[a.Unmap()] += by
			if after := before + by; after == 0 {
				delete(s.nodes, a.Unmap())
				changed = true
			} else if before == 0 {
				changed = true
			}
		}
	}
	count(now, 1)
	count(was, -1)
	if changed {
		for name := range s.uses {
			s.dirty[name] = struct{}{}
		}
	}
	return changed && len(s.uses) > 0
}

// tell the engine what changed.
func (s *namedServices) tell() {
	for name := range s.dirty {
		s.engine.SetService(name, s.clusters(name))
	}
	clear(s.dirty)
}

// clusters are what they say of a service, if policies name it.
func (s *namedServices) clusters(name policy.ServiceName) map[string]policy.Service {
	if s.uses[name] == 0 {
		return nil
	}
	out := map[string]policy.Service{}
	for _, d := range s.planner.Definitions(name.Namespace, name.Name) {
		if d.Cluster == s.cluster || d.Service.Global && d.Service.Shared {
			out[d.Cluster] = policy.NewService(d.Service, d.Slices, s.isNode)
		}
	}
	return out
}

func (s *namedServices) isNode(a netip.Addr) bool { return s.nodes[a] > 0 }
