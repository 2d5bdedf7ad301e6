// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func clusterOf(key string) string { return record.ClusterOf(key) }

// visit says which part each kind of record concerns.
func (p *Planner) visit() {
	t := p.tables
	table.Visit(p.records, t.Clusters, func(c table.Change[*record.Cluster]) {
		name := clusterOf(c.Key)
		if c.Now == nil && name == p.cfg.Cluster {
			return // until the next start: what it wants encrypted, and where its pods are, is not less for a lost record
		}
		p.topology.SetCluster(name, c.Now)
		p.policy.setCluster(name, c.Now)
	})
	table.Visit(p.records, t.Identities, func(c table.Change[*record.Identity]) { p.policy.setIdentity(c.Key, c.Before, c.Now) })
	table.Visit(p.records, t.Nodes, func(c table.Change[*record.Node]) {
		p.topology.SetNode(clusterOf(c.Key), either(c).Name, c.Now)
		p.policy.setAddresses(c.Before, c.Now)
		if clusterOf(c.Key) == p.cfg.Cluster { // what others say of their nodes' labels is nothing to its policies
			p.policy.setNode(either(c).Name, c.Now)
		}
	})
	table.Visit(p.records, t.Endpoints, p.endpoint)
	table.Visit(p.records, t.Services, func(c table.Change[*record.Service]) {
		s := either(c)
		p.services.SetService(clusterOf(c.Key), s.Namespace, s.Name, c.Now)
		p.policy.setService(s.Namespace, s.Name)
	})
	table.Visit(p.records, t.Slices, func(c table.Change[*record.Slice]) {
		// A slice may travel in parts: what follows the namespace in its key names the part.
		s := either(c)
		_, name, _ := strings.Cut(strings.TrimPrefix(c.Key, clusterOf(c.Key)+"/"+record.KindSlice+"/"), "/")
		p.services.SetSlice(clusterOf(c.Key), s.Namespace, name, c.Now)
		p.policy.setService(s.Namespace, s.Service)
		if c.Before != nil && c.Before.Service != s.Service {
			p.policy.setService(s.Namespace, c.Before.Service)
		}
	})
	table.Visit(p.records, t.Policies, func(c table.Change[*table.Policy]) {
		if clusterOf(c.Key) == p.cfg.Cluster { // a policy speaks for the cluster of its administrators
			p.policy.set(c.Key, c.Now)
		}
	})
}

// either is the record as it is now or, if it is gone, as it was.
func either[T comparable](c table.Change[T]) T {
	var none T
	if c.Now == none {
		return c.Before
	}
	return c.Now
}

func (p *Planner) endpoint(c table.Change[*record.Endpoint]) {
	e := either(c)
	p.topology.SetEndpoint(clusterOf(c.Key), e.Namespace, e.Name, c.Now)
	wasLocal, isLocal := p.local(c.Key, c.Before), p.local(c.Key, c.Now)
	p.pods.change(wasLocal, isLocal, c.Before, c.Now)
	pod := e.Namespace + "/" + e.Name
	switch {
	case isLocal && wasLocal:
		p.hostPorts.set(c.Before, c.Now)
		p.pods.rows[pod] = table.Pod{Endpoint: c.Now}
	case isLocal:
		p.hostPorts.set(nil, c.Now)
		p.pods.rows[pod] = table.Pod{Endpoint: c.Now}
	case wasLocal:
		p.hostPorts.set(c.Before, nil)
		p.pods.rows[pod] = table.Pod{}
	}
}

// local says whether an endpoint is a pod of this node.
func (p *Planner) local(key string, e *record.Endpoint) bool {
	return e != nil && e.Node == p.cfg.Node && clusterOf(key) == p.cfg.Cluster
}
