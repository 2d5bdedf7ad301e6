// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// rebuild makes a service's groups anew from its definitions. It costs the service, and only a change of a Service object
// comes here. Groups that stay keep their id and slots.
func (p *Planner) rebuild(s *state, changed map[FrontendKey]struct{}, d *Delta) {
	s.structure = false
	for key := range s.frontends {
		p.release(key, s)
		changed[key] = struct{}{}
	}
	before := s.groups
	s.groups, s.frontends, s.mismatch, s.affinity = nil, nil, nil, 0
	if own := p.reachable(s); own != nil {
		s.affinity = own.AffinityTimeout
		p.ports(s, own, before)
	}
	for key := range s.frontends {
		p.claim(key, s)
		changed[key] = struct{}{}
	}
	for _, g := range before {
		if !slices.Contains(s.groups, g) {
			g.clear(d)
		}
	}
}

// reachable is the local definition, if the service has addresses at all.
func (p *Planner) reachable(s *state) *record.Service {
	if len(s.defs) == 0 || s.defs[0].cluster != p.cfg.Cluster || s.defs[0].rec.Headless {
		return nil
	}
	return s.defs[0].rec
}

// ports makes a group for each port and address family of the local service, and its frontends.
func (p *Planner) ports(s *state, own *record.Service, before []*group) {
	s.frontends = map[FrontendKey]frontend{}
	left := p.cfg.Proxied != nil && p.cfg.Proxied(s.namespace, s.name.name)
	for _, port := range own.Ports {
		serves := map[string]record.Port{}
		for _, def := range s.defs {
			if !takesPart(p.cfg.Cluster, own, def.cluster, def.rec) {
				continue
			}
			if portName, ok := matchPort(def.rec.Ports, port); ok {
				serves[def.cluster] = record.Port{Name: portName, Protocol: port.Protocol}
			} else {
				s.mismatch = append(s.mismatch, noPort(def.cluster, port, s.String()))
			}
		}
		at := addressesOf(own, port, left)
		for _, v4 := range []bool{true, false} {
			g := p.family(s, own, port, v4, false, at, serves, before)
			if own.Global || g == nil { // else both kinds of addresses lead to the same backends
				local := map[string]record.Port{p.cfg.Cluster: {Name: port.Name, Protocol: port.Protocol}}
				p.family(s, own, port, v4, true, at, local, before)
			}
		}
	}
}

// fresh lists the addresses of a family that lead to local backends alone, or don't, and that no other port of the service has.
func (s *state) fresh(at []address, v4, local bool) []address {
	var out []address
	for _, a := range at {
		twice := slices.ContainsFunc(out, func(b address) bool { return b.FrontendKey == a.FrontendKey })
		if _, taken := s.frontends[a.FrontendKey]; !twice && !taken && a.Addr.Is4() == v4 && a.local == local {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b address) int { return a.compare(b.FrontendKey) })
	return out
}

func (s *state) enter(g *group, at []address) {
	for _, a := range at {
		if _, taken := s.frontends[a.FrontendKey]; !taken { // its own address is not an external one
			s.frontends[a.FrontendKey] = frontend{g, a.outside, a.proxied}
		}
	}
}

// family makes the group of one port and address family, unless no address of the service is of that kind.
func (p *Planner) family(s *state, own *record.Service, port record.Port, v4, local bool, all []address, serves map[string]record.Port, before []*group) *group {
	at := s.fresh(all, v4, local)
	if len(at) == 0 {
		return nil
	}
	if !local && !own.Global {
		at = append(at, s.fresh(all, v4, true)...) // they lead to the same backends
	}
	size := 0
	for sl := range s.slices {
		size += len(sl.rec.Backends)
	}
	affinity := own.Affinity
	if local {
		affinity = record.AffinityNone
	}
	g := newGroup(p, port, v4, affinity, serves, size)
	g.local = local
	if i := slices.IndexFunc(before, g.replaces); i >= 0 {
		g.id = before[i].id
		g.remember(before[i].slots, before[i].emitted)
		before[i] = g // replaced, so not to be cleared
	} else {
		g.id = p.newID(at)
		g.remember(p.cfg.Slots[g.id], 0)
		delete(p.cfg.Slots, g.id)
	}
	for sl := range s.slices {
		if in, ok := serves[sl.cluster]; ok {
			g.replace(sl, in, nil, sl.rec)
		}
	}
	s.groups = append(s.groups, g)
	s.enter(g, at)
	return g
}

// newID gives the id that one of the frontends had in an earlier run, else one that nobody has had. No two groups share
// an id, even if an earlier version let their frontends do so.
func (p *Planner) newID(at []address) uint32 {
	for _, a := range at {
		ids := p.cfg.IDs
		if a.proxied {
			ids = p.cfg.ProxiedIDs
		}
		id, ok := ids[a.FrontendKey]
		if _, taken := p.taken[id]; ok && !taken {
			p.taken[id] = struct{}{}
			return id
		}
	}
	p.lastID++
	return p.lastID
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// claim enters a service among those that want a frontend. The first by name has it; nobody takes another service's own
// address by calling it an external one.
func (p *Planner) claim(key FrontendKey, s *state) {
	list := p.claims[key]
	i, _ := slices.BinarySearchFunc(list, s, func(a, b *state) int {
		return cmp.Or(compareBools(a.frontends[key].outside, b.frontends[key].outside), compareNames(a.name, b.name))
	})
	p.claims[key] = slices.Insert(list, i, s)
	p.renote(key)
}

func (p *Planner) release(key FrontendKey, s *state) {
	list := p.claims[key]
	if i := slices.Index(list, s); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(p.claims, key)
		return
	}
	p.claims[key] = list
	p.renote(key)
}

// renote renews the problems of services that share a frontend.
func (p *Planner) renote(key FrontendKey) {
	for _, s := range p.claims[key] {
		if len(p.claims[key]) > 1 || p.problems[s] != nil {
			p.dirty[s] = struct{}{}
		}
	}
}

// maxProblems of one service that are listed.
const maxProblems = 5

// note collects what is wrong with a service.
func (p *Planner) note(s *state) {
	list := slices.Clone(s.mismatch)
	for key := range s.frontends {
		if first := p.claims[key][0]; first != s {
			list = append(list, fmt.Sprintf("%s (%s) is the address of service %s too, which keeps it",
				netip.AddrPortFrom(key.Addr, key.Port), record.Protocol(key.Proto), first.name))
		}
	}
	for _, g := range s.groups {
		list = append(list, g.clashes(maxProblems-len(list))...)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > maxProblems {
		list = append(list[:maxProblems], fmt.Sprintf("and %d more problems like these", len(list)-maxProblems))
	}
	if len(list) == 0 {
		delete(p.problems, s)
		return
	}
	p.problems[s] = list
}

// Problems lists what is wrong, by service.
func (p *Planner) Problems() []string {
	if len(p.problems) == 0 {
		return nil
	}
	var out []string
	for s, list := range p.problems {
		for _, text := range list {
			out = append(out, "service "+s.String()+": "+text)
		}
	}
	slices.Sort(out)
	return out
}
