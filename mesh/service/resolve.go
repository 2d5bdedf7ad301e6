// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package service decides what a service's address leads to.
//
//	annotations ── ParseAnnotations ──► Settings                     (operator, when it exports a Service)
//	every cluster's Service and BackendSlices ── Resolve ──► Frontends with their Backends   (agent, CLI)
//
// Resolve looks at one service at a time, so that a change costs the service it happened to and nothing else. The package
// is pure: same records, same answer, in the same order.
package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Definition is a service (one namespace and name) as one cluster defines it.
type Definition struct {
	Cluster string
	Service *recordv1.Service
	Slices  []*recordv1.BackendSlice
}

// Backend is one place a connection can go to.
type Backend struct {
	Cluster string
	Addr    netip.Addr
	Port    uint16
	Node    string
	Zone    string
}

// Frontend is an address that pods of this cluster connect to.
type Frontend struct {
	Addr            netip.Addr
	Port            uint16
	Proto           uint8  // IP protocol number
	Name            string // namespace/name
	PortName        string
	AffinityTimeout uint32 // seconds a client sticks to its backend; 0: it does not
	Backends        []Backend
}

// Resolution is what Resolve found.
type Resolution struct {
	Frontends []Frontend
	Problems  []string
}

// Resolve merges the definitions that clusters have of ONE service into what its addresses in the local cluster lead to.
// Without a Service in the local cluster there is no address, hence no frontend.
func Resolve(local string, defs []Definition) Resolution {
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
	pools := r.pools(own, defs)

	var out []Frontend
	for _, text := range own.ClusterIps {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			r.problem("cluster %s: cluster IP %q: %v", local, text, err)
			continue
		}
		addr = addr.Unmap()
		for i, port := range own.Ports {
			proto, ok := protocol(port.Protocol)
			if !ok || port.Port == 0 || port.Port > 65535 {
				continue // reported by pools
			}
			out = append(out, Frontend{
				Addr: addr, Port: uint16(port.Port), Proto: proto, Name: r.name, PortName: port.Name,
				AffinityTimeout: own.AffinityTimeoutSeconds,
				Backends:        pools[i].choose(own.Affinity, addr.Is4()),
			})
		}
	}
	slices.SortStableFunc(out, compareFrontends)
	out = slices.CompactFunc(out, func(a, b Frontend) bool { return compareFrontends(a, b) == 0 })
	return Resolution{Frontends: out, Problems: r.problems}
}

func compareFrontends(a, b Frontend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
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
func (r *resolver) pools(own *recordv1.Service, defs []Definition) []*pool {
	out := make([]*pool, len(own.Ports))
	for i, port := range own.Ports {
		out[i] = &pool{seen: map[netip.AddrPort]int{}}
		proto, ok := protocol(port.Protocol)
		if !ok || port.Port == 0 || port.Port > 65535 {
			r.problem("cluster %s: port %q: %s/%d is not a port", r.local, port.Name, port.Protocol, port.Port)
			continue
		}
		for _, d := range defs {
			if d.Cluster != r.local && !(own.Global && d.Service.Global && d.Service.Shared) {
				continue
			}
			match := matchPort(d.Service.Ports, port, proto)
			if match == nil {
				r.problem("cluster %s has no port %q (%s/%d): its backends do not serve that port of %s",
					d.Cluster, port.Name, port.Protocol, port.Port, r.name)
				continue
			}
			r.collect(out[i], d, match.Name, proto)
		}
		out[i].sort()
	}
	return out
}

// matchPort finds the port of another cluster's definition that stands for one of ours: the one of that name, else the
// one with that number. Protocols must agree either way.
func matchPort(ports []*recordv1.ServicePort, want *recordv1.ServicePort, proto uint8) *recordv1.ServicePort {
	var byNumber *recordv1.ServicePort
	for _, p := range ports {
		if have, ok := protocol(p.Protocol); !ok || have != proto {
			continue
		}
		if p.Name == want.Name {
			return p
		}
		if p.Port == want.Port && byNumber == nil {
			byNumber = p
		}
	}
	return byNumber
}

// collect adds a cluster's backends for one of its ports.
func (r *resolver) collect(to *pool, d Definition, portName string, proto uint8) {
	for _, s := range d.Slices {
		target := targetPort(s.Ports, portName, proto)
		if target == 0 {
			continue
		}
		for _, b := range s.Backends {
			if len(b.Addresses) == 0 {
				continue
			}
			// The API gives no meaning to addresses after the first; kube-proxy ignores them too.
			addr, err := netip.ParseAddr(b.Addresses[0])
			if err != nil {
				r.problem("cluster %s: slice %s: address %q: %v", d.Cluster, s.Name, b.Addresses[0], err)
				continue
			}
			if owner, clash := to.add(d.Cluster == r.local, state(b), Backend{
				Cluster: d.Cluster, Addr: addr.Unmap(), Port: target, Node: b.Node, Zone: b.Zone,
			}); clash {
				r.problem("clusters %s and %s both claim the backend %s; %s keeps it", owner, d.Cluster,
					netip.AddrPortFrom(addr, target), owner)
			}
		}
	}
}

// targetPort finds the port that the pods of a slice listen on for a service's port; 0 if there is none.
func targetPort(ports []*recordv1.ServicePort, name string, proto uint8) uint16 {
	for _, p := range ports {
		if have, ok := protocol(p.Protocol); ok && have == proto && p.Name == name && p.Port <= 65535 {
			return uint16(p.Port)
		}
	}
	return 0
}

// protocol returns the number of a protocol as Services name it; absent means TCP there.
func protocol(name string) (uint8, bool) {
	switch name {
	case "TCP", "":
		return 6, true
	case "UDP":
		return 17, true
	case "SCTP":
		return 132, true
	}
	return 0, false
}
