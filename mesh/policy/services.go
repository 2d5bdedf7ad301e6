// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// ServiceName names a service. Services of the same name in several clusters are one if they are global.
type ServiceName struct{ Namespace, Name string }

func (n ServiceName) String() string { return n.Namespace + "/" + n.Name }

// Service is what a cluster says of a service, as far as policies name services: rules mean what is behind it.
type Service struct {
	Selector  map[string]string // of pods in its namespace and cluster; empty: none of them
	Addresses []netip.Addr      // of what else is behind it, ascending, each once
	Global    bool              // others' services of its name are meant, too
	Shared    bool              // others mean it
}

// NewService is a service from its records. Pods are told by its selector, so that it costs nothing when they come and go. Backends are told
// by their addresses if they are nodes, which is where pods of the host network are, and if the selector doesn't tell: if there is none, as with
// default/kubernetes, or if it names labels that identities don't have.
func NewService(s *record.Service, of []*record.Slice, isNode func(netip.Addr) bool) Service {
	out := Service{Global: s.Global, Shared: s.Global && s.Shared}
	if tells(s.Selector) {
		out.Selector = s.Selector
	}
	for _, slice := range of {
		for i := range slice.Backends {
			if a := slice.Backends[i].Addr.Unmap(); out.Selector == nil || isNode(a) {
				out.Addresses = append(out.Addresses, a)
			}
		}
	}
	slices.SortFunc(out.Addresses, netip.Addr.Compare)
	out.Addresses = slices.Compact(out.Addresses)
	return out
}

// tells says whether the identities that a service's selector chooses are those of its pods.
func tells(selector map[string]string) bool {
	for key := range selector {
		if _, out := identity.Excluded(key); out || identity.Given(key) {
			return false
		}
	}
	return len(selector) > 0
}

func (s Service) equal(t Service) bool {
	return s.Global == t.Global && s.Shared == t.Shared && maps.Equal(s.Selector, t.Selector) && slices.Equal(s.Addresses, t.Addresses)
}

// peers are what is behind a service of a cluster.
func (s Service) peers(namespace, cluster string, local bool) []peer {
	out := make([]peer, 0, len(s.Addresses)+1)
	for _, a := range s.Addresses {
		out = append(out, peer{cidr: netip.PrefixFrom(a, a.BitLen())})
	}
	if len(s.Selector) == 0 {
		return out
	}
	want := maps.Clone(s.Selector)
	if !local {
		want[identity.LabelCluster] = cluster
	}
	pods, err := compileSelector(&metav1.LabelSelector{MatchLabels: want})
	if err != nil { // no label is such, so no pod has it
		return out
	}
	return append(out, peer{pods: &podSelector{local: local, namespace: namespace, pods: pods}})
}

// ofService are the peers that a rule means by a service: what is behind the local cluster's and, if that is global, behind those
// that other clusters share; nobody if there is none. If the subject's own node is behind the local one, it is identity.Host as
// well, for it has other addresses. May says that it may be: nothing is known of it.
func (n *named) ofService(name ServiceName) (out []peer, may bool) {
	by := n.services[name]
	own, there := by[n.cluster]
	if there {
		out = own.peers(name.Namespace, n.cluster, true)
	}
	if own.Global {
		for _, cluster := range sortedKeys(by) {
			if s := by[cluster]; cluster != n.cluster && s.Global && s.Shared {
				out = append(out, s.peers(name.Namespace, cluster, false)...)
			}
		}
	}
	if len(out) == 0 {
		return []peer{{cidr: nobody}}, false
	}
	node, known := n.nodes[n.node]
	if slices.ContainsFunc(node.Addresses, func(a netip.Addr) bool { return slices.Contains(own.Addresses, a.Unmap()) }) {
		out = append(out, peer{entity: identity.Host})
	}
	return out, n.node != "" && !known && len(own.Addresses) > 0
}

// SetService sets what clusters say of a service, by their names; empty removes it. Of others than the local cluster only those count that
// share it. The maps must not change afterwards.
func (e *Engine) SetService(name ServiceName, clusters map[string]Service) {
	e.inputs.services[name] = clusters
}

// applyServices takes over services, and has the policies installed anew that name one of those that changed.
func (e *Engine) applyServices() {
	for name, now := range e.inputs.services {
		was := e.names.services[name]
		if len(now) == 0 {
			delete(e.names.services, name)
		} else {
			e.names.services[name] = now
		}
		if maps.EqualFunc(was, now, Service.equal) {
			continue
		}
		for p := range e.policies.onServices[name] {
			e.outdate(p)
		}
	}
}

// outdate has a policy installed anew, because what it names has changed.
func (e *Engine) outdate(p *installed) {
	if _, set := e.inputs.policies[p.source.key]; !set {
		e.inputs.policies[p.source.key] = p.source
		p.outdated = true
	}
}

// ServiceNames are the services that a policy names.
func (m *Model) ServiceNames() (out []ServiceName) {
	for _, one := range m.all() {
		out = append(out, one.serviceNames()...)
	}
	return out
}

func (m *Model) serviceNames() (out []ServiceName) {
	for _, p := range m.peers() {
		if p.service != (ServiceName{}) {
			out = append(out, p.service)
		}
	}
	return out
}
