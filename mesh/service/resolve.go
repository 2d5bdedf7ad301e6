// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package service decides what a service's address leads to.
//
//	annotations ── ParseAnnotations ──► Settings                     (operator, when it exports a Service)
//	every cluster's Services and Slices ── Planner ──► frontends and slots, as changes       (agent)
//	one service's definitions ── Resolve ──► Frontends with their Backends                   (oracle)
//
// Resolve defines what is right: it resolves one service as a whole. Planner gives the same with each change costing the
// change; a property test holds the two equal. The package is pure: same records, same answer.
package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Definition is a service (one namespace and name) as one cluster defines it.
type Definition struct {
	Cluster string
	Service *record.Service
	Slices  []*record.Slice
}

// Backend is one place a connection can go to.
type Backend struct {
	Cluster string
	Addr    netip.Addr
	Port    uint16
	Node    string
	Zone    string
}

// FrontendKey is an address, port and IP protocol number that pods of this cluster connect to.
type FrontendKey struct {
	Addr  netip.Addr
	Port  uint16
	Proto uint8
}

// Frontend is what an address leads to.
type Frontend struct {
	FrontendKey
	Name            string // namespace/name
	PortName        string
	AffinityTimeout uint32 // seconds a client sticks to its backend; 0: it does not
	// Outside says that it is for clients from outside of the cluster first of all: a node port, an external address. It leads to
	// the local cluster's backends alone, as it does for kube-proxy.
	Outside bool
	// Proxied frontends are kube-proxy's to translate: those of services that are left to it, and those that lead from outside
	// to backends of one node alone. Policy judges by their backends.
	Proxied  bool
	Backends []Backend
}

// Resolution is what Resolve found.
type Resolution struct {
	Frontends []Frontend
	Problems  []string
}

// Resolve merges the definitions that clusters have of ONE service into what its addresses in the local cluster lead to.
// Without a Service in the local cluster there is no address, hence no frontend.
func Resolve(local string, defs []Definition) Resolution { return resolve(local, defs, false) }

// ResolveProxied does the same for a service that is left to kube-proxy.
func ResolveProxied(local string, defs []Definition) Resolution { return resolve(local, defs, true) }

func resolve(local string, defs []Definition, proxied bool) Resolution {
	r := resolver{local: local}
	defs = r.order(defs)
	if len(defs) == 0 || defs[0].Cluster != local {
		return Resolution{Problems: r.problems}
	}
	own := defs[0].Service
	if own.Headless {
		return Resolution{Problems: r.problems}
	}
	r.name = own.Namespace + "/" + own.Name
	pools, locals := r.pools(own, defs), (&resolver{local: local, name: r.name}).pools(own, defs[:1])

	var out []Frontend
	for i, port := range own.Ports {
		for _, at := range addressesOf(own, port, proxied) {
			f := Frontend{FrontendKey: at.FrontendKey, Name: r.name, PortName: port.Name, Outside: at.outside, Proxied: at.proxied}
			if !at.proxied {
				f.AffinityTimeout = own.AffinityTimeout
			}
			if at.local {
				f.Backends = locals[i].choose(record.AffinityNone, at.Addr.Is4())
			} else {
				f.Backends = pools[i].choose(own.Affinity, at.Addr.Is4())
			}
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, compareFrontends)
	out = slices.CompactFunc(out, func(a, b Frontend) bool { return compareFrontends(a, b) == 0 })
	return Resolution{Frontends: out, Problems: r.problems}
}

// address of a service's port.
type address struct {
	FrontendKey
	local   bool // leads to the local cluster's backends alone, as all do that are for the outside
	outside bool
	proxied bool
}

// addressesOf lists where a port of the local service is reached; left says that the service is left to kube-proxy. Node ports
// have the address zero: they are at all addresses of all nodes.
func addressesOf(own *record.Service, port record.Port, left bool) []address {
	var out []address
	add := func(addr netip.Addr, number uint16, outside bool) {
		out = append(out, address{
			FrontendKey: FrontendKey{Addr: addr, Port: number, Proto: uint8(port.Protocol)},
			local:       outside || left, outside: outside, proxied: left || outside && own.ExternalByProxy,
		})
	}
	for _, addr := range own.ClusterIPs {
		add(addr, port.Number, false)
	}
	for _, addr := range own.External {
		add(addr, port.Number, true)
	}
	if port.NodePort != 0 {
		for _, addr := range own.ClusterIPs { // node ports have the families of these
			zero := netip.IPv6Unspecified()
			if addr.Is4() {
				zero = netip.IPv4Unspecified()
			}
			add(zero, port.NodePort, true)
		}
	}
	return out
}

func compareFrontends(a, b Frontend) int { return a.compare(b.FrontendKey) }

func (k FrontendKey) compare(o FrontendKey) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Proto, o.Proto))
}

type resolver struct {
	local    string
	name     string
	problems []string
}

func (r *resolver) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// order puts the local definition first and the others by name, and keeps one a cluster.
func (r *resolver) order(defs []Definition) []Definition {
	out := make([]Definition, 0, len(defs))
	for _, d := range defs {
		if d.Service != nil {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b Definition) int {
		return cmp.Or(cmp.Compare(rank(a.Cluster, r.local), rank(b.Cluster, r.local)), cmp.Compare(a.Cluster, b.Cluster))
	})
	return slices.CompactFunc(out, func(a, b Definition) bool {
		if a.Cluster != b.Cluster {
			return false
		}
		r.problem("cluster %s defines %s/%s more than once; the first definition is used", b.Cluster, b.Service.Namespace, b.Service.Name)
		return true
	})
}

func rank(cluster, local string) int {
	if cluster == local {
		return 0
	}
	return 1
}

// pools collects, for each port of the local service, the backends of all clusters that take part.
func (r *resolver) pools(own *record.Service, defs []Definition) []*pool {
	out := make([]*pool, len(own.Ports))
	for i, port := range own.Ports {
		out[i] = &pool{seen: map[netip.AddrPort]int{}}
		for _, d := range defs {
			if !takesPart(r.local, own, d.Cluster, d.Service) {
				continue
			}
			name, ok := matchPort(d.Service.Ports, port)
			if !ok {
				r.problems = append(r.problems, noPort(d.Cluster, port, r.name))
				continue
			}
			r.collect(out[i], d, name, port.Protocol)
		}
		out[i].sort()
	}
	return out
}

// takesPart says whether backends of a cluster serve the local cluster's service.
func takesPart(local string, own *record.Service, cluster string, s *record.Service) bool {
	return cluster == local || own.Global && s.Global && s.Shared
}

func noPort(cluster string, port record.Port, service string) string {
	return fmt.Sprintf("cluster %s has no port %q (%s/%d): its backends do not serve that port of %s",
		cluster, port.Name, port.Protocol, port.Number, service)
}

func clash(owner, cluster string, at netip.AddrPort) string {
	return fmt.Sprintf("clusters %s and %s both claim the backend %s; %s keeps it", owner, cluster, at, owner)
}

// matchPort finds the name of the port of another cluster's definition that stands for one of ours: the one of that name,
// else the one with that number. Protocols must agree either way.
func matchPort(ports []record.Port, want record.Port) (name string, ok bool) {
	for _, p := range ports {
		if p.Protocol != want.Protocol {
			continue
		}
		if p.Name == want.Name {
			return p.Name, true
		}
		if p.Number == want.Number && !ok {
			name, ok = p.Name, true
		}
	}
	return name, ok
}

// collect adds a cluster's backends for one of its ports.
func (r *resolver) collect(to *pool, d Definition, portName string, proto record.Protocol) {
	for _, s := range d.Slices {
		target := targetPort(s.Ports, portName, proto)
		if target == 0 {
			continue
		}
		for _, b := range s.Backends {
			if owner, stolen := to.add(d.Cluster == r.local, stateOf(&b), Backend{
				Cluster: d.Cluster, Addr: b.Addr, Port: target, Node: b.Node, Zone: b.Zone,
			}); stolen {
				r.problems = append(r.problems, clash(owner, d.Cluster, netip.AddrPortFrom(b.Addr, target)))
			}
		}
	}
}

// targetPort finds the port that the pods of a slice listen on for a service's port; 0 if there is none.
func targetPort(ports []record.Port, name string, proto record.Protocol) uint16 {
	for _, p := range ports {
		if p.Protocol == proto && p.Name == name {
			return p.Number
		}
	}
	return 0
}
