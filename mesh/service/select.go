// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// readiness orders the states of a backend by how well it can take a new connection.
type readiness int

const (
	unusable readiness = iota
	draining           // terminating but still serving: better than nobody
	ready
)

func stateOf(b *record.Backend) readiness {
	switch {
	case b.Ready:
		return ready
	case b.Serving && b.Terminating:
		return draining
	}
	return unusable
}

// pool is the backends of one port, of all clusters, usable or not.
type pool struct {
	members []candidate
	seen    map[netip.AddrPort]int // → index in members
}

type candidate struct {
	Backend
	local bool
	state readiness
}

// add puts a backend into the pool. EndpointSlices may name an address twice while endpoints move between slices: the
// better state counts. A second cluster with the same address is not believed; its name is the caller's problem.
func (p *pool) add(local bool, s readiness, b Backend) (owner string, clash bool) {
	key := netip.AddrPortFrom(b.Addr, b.Port)
	if i, ok := p.seen[key]; ok {
		have := &p.members[i]
		if have.Cluster != b.Cluster {
			return have.Cluster, true
		}
		if s > have.state {
			*have = candidate{Backend: b, local: local, state: s}
		}
		return "", false
	}
	p.seen[key] = len(p.members)
	p.members = append(p.members, candidate{Backend: b, local: local, state: s})
	return "", false
}

// sort makes the outcome independent of the order of slices.
func (p *pool) sort() {
	slices.SortFunc(p.members, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
}

// choose returns the backends of one address family that new connections go to.
//
// Ready backends come before draining ones, everywhere: a cluster whose last pods are shutting down is not preferred over
// one that is well. Among equally good ones the affinity says which clusters' count; it is a preference of all or
// nothing, and never leaves a service without backends while somebody has one.
func (p *pool) choose(affinity record.Affinity, v4 bool) []Backend {
	for _, s := range []readiness{ready, draining} {
		locals, remotes := p.pick(s, v4)
		switch affinity {
		case record.AffinityLocal:
			if len(locals) > 0 {
				return locals
			}
			if len(remotes) > 0 {
				return remotes
			}
		case record.AffinityRemote:
			if len(remotes) > 0 {
				return remotes
			}
			if len(locals) > 0 {
				return locals
			}
		default:
			if all := p.merge(s, v4); len(all) > 0 {
				return all
			}
		}
	}
	return nil
}

func (p *pool) pick(s readiness, v4 bool) (locals, remotes []Backend) {
	for _, m := range p.members {
		if m.state != s || m.Addr.Is4() != v4 {
			continue
		}
		if m.local {
			locals = append(locals, m.Backend)
		} else {
			remotes = append(remotes, m.Backend)
		}
	}
	return locals, remotes
}

func (p *pool) merge(s readiness, v4 bool) []Backend {
	var out []Backend
	for _, m := range p.members {
		if m.state == s && m.Addr.Is4() == v4 {
			out = append(out, m.Backend)
		}
	}
	return out
}
