// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Config of a Planner.
type Config struct {
	// Cluster is the local one.
	Cluster string
	// Proxied says which services are left to kube-proxy.
	Proxied func(namespace, name string) bool
	// IDs that frontends had in an earlier run: they keep them. ProxiedIDs are those of Proxied rows.
	IDs, ProxiedIDs map[FrontendKey]uint32
	// Slots that backends had in an earlier run, by id, so that a restart moves none: they are in the first Delta as they
	// were. An invalid address is an empty slot.
	Slots map[uint32][]netip.AddrPort
}

// Row is what a frontend leads to: slots 0 … Backends-1 of ID.
type Row struct {
	ID              uint32
	Backends        uint32
	AffinityTimeout uint32 // seconds; 0: none
	Proxied         bool   // kube-proxy translates it; see Frontend
}

// SlotKey is one place of a service id.
type SlotKey struct{ ID, Slot uint32 }

// Delta is what changed. A nil row and an invalid address are gone. Slots must be written before the frontends that count
// them, and frontends before slots are removed.
type Delta struct {
	Frontends map[FrontendKey]*Row
	Slots     map[SlotKey]netip.AddrPort
}

// Planner resolves all services, change by change. It gives what Resolve gives; the order of slots is its own: a backend
// that comes takes the next slot, one that goes leaves its slot to the last one.
type Planner struct {
	cfg      Config
	services map[name]*state
	slices   map[sliceKey]*sliceState
	dirty    map[*state]struct{}

	claims   map[FrontendKey][]*state // who wants a frontend, by name; the first has it
	rows     map[FrontendKey]Row      // as emitted
	taken    map[uint32]struct{}      // of the remembered ids
	lastID   uint32
	problems map[*state][]string
}

type name struct{ namespace, name string }

func (n name) String() string { return n.namespace + "/" + n.name }

func compareNames(a, b name) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

type sliceKey struct{ cluster, namespace, name string }

// sliceState is a slice, where it lies now.
type sliceState struct {
	cluster string
	of      *state
	rec     *record.Slice
}

// state is a service, as all clusters define it.
type state struct {
	name
	defs   []*definition // the local one first, the others by name
	slices map[*sliceState]struct{}

	// structure says that definitions changed, so that ports and groups must be made anew.
	structure bool
	groups    []*group
	frontends map[FrontendKey]frontend
	affinity  uint32
	mismatch  []string // ports that clusters don't have
}

// frontend is where a service is reached.
type frontend struct {
	*group
	outside, proxied bool
}

// definition is a cluster's Service.
type definition struct {
	cluster string
	rec     *record.Service
}

// NewPlanner makes a planner that knows no service.
func NewPlanner(cfg Config) *Planner {
	p := &Planner{
		cfg: cfg, services: map[name]*state{}, slices: map[sliceKey]*sliceState{}, dirty: map[*state]struct{}{},
		claims: map[FrontendKey][]*state{}, rows: map[FrontendKey]Row{}, taken: map[uint32]struct{}{}, problems: map[*state][]string{},
	}
	for _, ids := range []map[FrontendKey]uint32{cfg.IDs, cfg.ProxiedIDs} {
		for _, id := range ids {
			p.lastID = max(p.lastID, id)
		}
	}
	return p
}

// SetService sets what a cluster says of a service; nil removes it.
func (p *Planner) SetService(cluster, namespace, service string, rec *record.Service) {
	s := p.state(name{namespace, service})
	i, found := slices.BinarySearchFunc(s.defs, cluster, func(d *definition, c string) int { return p.compareClusters(d.cluster, c) })
	switch {
	case rec == nil && !found:
		p.dirty[s] = struct{}{} // may have been made by the look
		return
	case rec == nil:
		s.defs = slices.Delete(s.defs, i, i+1)
	case found:
		s.defs[i] = &definition{cluster, rec}
	default:
		s.defs = slices.Insert(s.defs, i, &definition{cluster, rec})
	}
	s.structure = true
	p.dirty[s] = struct{}{}
}

// SetSlice sets a cluster's slice; nil removes it. Only the backends that differ from the slice before are touched.
func (p *Planner) SetSlice(cluster, namespace, slice string, rec *record.Slice) {
	key := sliceKey{cluster, namespace, slice}
	have := p.slices[key]
	if have != nil && (rec == nil || have.of.name.name != rec.Service) {
		p.change(have, nil)
		delete(have.of.slices, have)
		delete(p.slices, key)
		have = nil
	}
	if rec == nil {
		return
	}
	if have == nil {
		have = &sliceState{cluster: cluster, of: p.state(name{namespace, rec.Service})}
		have.of.slices[have] = struct{}{}
		p.slices[key] = have
	}
	p.change(have, rec)
}

// Definitions are what clusters say of a service, the local one first.
func (p *Planner) Definitions(namespace, service string) []Definition {
	s := p.services[name{namespace, service}]
	if s == nil {
		return nil
	}
	out := make([]Definition, len(s.defs))
	for i, d := range s.defs {
		out[i] = Definition{Cluster: d.cluster, Service: d.rec}
		for sl := range s.slices {
			if sl.cluster == d.cluster {
				out[i].Slices = append(out[i].Slices, sl.rec)
			}
		}
	}
	return out
}

// change replaces a slice's content in the groups that exist.
func (p *Planner) change(sl *sliceState, rec *record.Slice) {
	for _, g := range sl.of.groups {
		if port, ok := g.serves[sl.cluster]; ok && !sl.of.structure {
			g.replace(sl, port, sl.rec, rec)
		}
	}
	sl.rec = rec
	p.dirty[sl.of] = struct{}{}
}

func (p *Planner) state(n name) *state {
	s := p.services[n]
	if s == nil {
		s = &state{name: n, slices: map[*sliceState]struct{}{}}
		p.services[n] = s
	}
	return s
}

func (p *Planner) compareClusters(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a, p.cfg.Cluster), rank(b, p.cfg.Cluster)), cmp.Compare(a, b))
}

// Step returns what changed since the last one.
func (p *Planner) Step() Delta {
	d := Delta{Frontends: map[FrontendKey]*Row{}, Slots: map[SlotKey]netip.AddrPort{}}
	changed := map[FrontendKey]struct{}{}
	// By name, so that equal changes give equal ids on every node.
	for _, s := range slices.SortedFunc(maps.Keys(p.dirty), func(a, b *state) int { return compareNames(a.name, b.name) }) {
		if s.structure {
			p.rebuild(s, changed, &d)
		}
		for _, g := range s.groups {
			if g.settle(&d) {
				for key, of := range s.frontends {
					if of.group == g {
						changed[key] = struct{}{}
					}
				}
			}
		}
		if len(s.defs) == 0 && len(s.slices) == 0 {
			delete(p.services, s.name)
		}
	}
	for s := range p.dirty { // those among them that lost or got a frontend through another service
		p.note(s)
	}
	clear(p.dirty)
	for key := range changed {
		p.emit(key, &d)
	}
	return d
}

// emit brings one frontend's row up to date.
func (p *Planner) emit(key FrontendKey, d *Delta) {
	had, known := p.rows[key]
	claims := p.claims[key]
	if len(claims) == 0 {
		if known {
			delete(p.rows, key)
			d.Frontends[key] = nil
		}
		return
	}
	s := claims[0]
	f := s.frontends[key]
	row := Row{ID: f.id, Backends: uint32(len(f.slots)), Proxied: f.proxied}
	switch {
	case !f.proxied:
		row.AffinityTimeout = s.affinity
	case len(claims) > 1:
		row.Backends = 0 // which of them kube-proxy means is not known, so neither is what it leads to
	}
	if !known || had != row {
		p.rows[key] = row
		d.Frontends[key] = &row
	}
}
