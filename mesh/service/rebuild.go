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
			if own.Global || g == nil { // else kube-proxy chooses among the same
				local := map[string]record.Port{p.cfg.Cluster: {Name: port.Name, Protocol: port.Protocol}}
				p.family(s, own, port, v4, true, at, local, before)
				continue
			}
			for _, key := range s.fresh(at, v4, true) {
				s.frontends[key] = frontend{g, true}
			}
		}
	}
}

// fresh lists the addresses of a family that are proxied, or are not, and that no other port of the service has.
func (s *state) fresh(at []address, v4, proxied bool) []FrontendKey {
	var keys []FrontendKey
	for _, a := range at {
		if _, twice := s.frontends[a.FrontendKey]; !twice && a.Addr.Is4() == v4 && a.proxied == proxied && !slices.Contains(keys, a.FrontendKey) {
			keys = append(keys, a.FrontendKey)
		}
	}
	slices.SortFunc(keys, FrontendKey.compare)
	return keys
}

// family makes the group of one port and address family, unless no address of the service is of that kind.
func (p *Planner) family(s *state, own *record.Service, port record.Port, v4, proxied bool, at []address, serves map[string]record.Port, before []*group) *group {
	keys := s.fresh(at, v4, proxied)
	if len(keys) == 0 {
		return nil
	}
	size := 0
	for sl := range s.slices {
		size += len(sl.rec.Backends)
	}
	affinity := own.Affinity
	if proxied {
		affinity = record.AffinityNone
	}
	g := newGroup(p, port, v4, affinity, serves, size)
	g.proxied = proxied
	if i := slices.IndexFunc(before, g.replaces); i >= 0 {
		g.id = before[i].id
		g.remember(before[i].slots, before[i].emitted)
		before[i] = g // replaced, so not to be cleared
	} else {
		switch {
		case proxied:
			g.id = p.newID(nil, keys)
		case own.Global:
			g.id = p.newID(keys, nil)
		default:
			g.id = p.newID(keys, s.fresh(at, v4, true))
		}
		g.remember(p.cfg.Slots[g.id], 0)
		delete(p.cfg.Slots, g.id)
	}
	for sl := range s.slices {
		if in, ok := serves[sl.cluster]; ok {
			g.replace(sl, in, nil, sl.rec)
		}
	}
	s.groups = append(s.groups, g)
	for _, key := range keys {
		s.frontends[key] = frontend{g, proxied}
	}
	return g
}

// newID gives the id that one of the frontends had in an earlier run, else one that nobody has had. No two groups share
// an id, even if an earlier version let their frontends do so. A group that has frontends of both kinds may have lost those
// of its own to another service.
func (p *Planner) newID(keys, proxied []FrontendKey) uint32 {
	had := func(ids map[FrontendKey]uint32, keys []FrontendKey) uint32 {
		for _, key := range keys {
			id, ok := ids[key]
			if _, taken := p.taken[id]; ok && !taken {
				p.taken[id] = struct{}{}
				return id
			}
		}
		return 0
	}
	if id := had(p.cfg.IDs, keys); id != 0 {
		return id
	}
	if id := had(p.cfg.ProxiedIDs, proxied); id != 0 {
		return id
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

// claim enters a service among those that want a frontend. The first by name has it, of those that are not left to
// kube-proxy if there are any.
func (p *Planner) claim(key FrontendKey, s *state) {
	list := p.claims[key]
	i, _ := slices.BinarySearchFunc(list, s, func(a, b *state) int {
		return cmp.Or(compareBools(a.frontends[key].proxied, b.frontends[key].proxied), compareNames(a.name, b.name))
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
