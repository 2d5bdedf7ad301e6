// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// kernel is the datapath's maps, and decides by them as bpf/lib/policy.h does (docs/decisions/0005).
type kernel struct {
	sets       map[uint16]uint64
	classes    map[uint32]Bitmap
	identities map[uint32]uint32
	groups     map[uint32][]Line
	subjects   map[SubjectKey]Subject
	cidrs      map[netip.Prefix]uint32
	rules      map[uint32]Rule
	epoch      int
	fullEpoch  int
}

func newKernel() *kernel {
	return &kernel{
		sets: map[uint16]uint64{}, classes: map[uint32]Bitmap{}, identities: map[uint32]uint32{}, groups: map[uint32][]Line{},
		subjects: map[SubjectKey]Subject{}, cidrs: map[netip.Prefix]uint32{}, rules: map[uint32]Rule{},
	}
}

// operations are the single writes of a delta, in the order that Delta prescribes. at is called with the number of the first
// one after the switch.
func (k *kernel) operations(d *Delta) (ops []func(), afterSwitch int) {
	if d.Forget {
		ops = append(ops, func() { k.epoch += 2; k.fullEpoch = k.epoch })
	}
	b := &d.Before
	for _, group := range [][]func(){k.setOps(b), k.classOps(b), k.identityOps(b), k.cidrOps(b), k.groupOps(b)} {
		ops = append(ops, group...)
	}
	if d.Switch {
		ops = append(ops, func() {
			put(k.subjects, d.Subjects)
			k.epoch++
		})
	}
	afterSwitch = len(ops)
	a := &d.After
	for _, group := range [][]func(){k.groupOps(a), k.cidrOps(a), k.identityOps(a), k.classOps(a), k.setOps(a)} {
		ops = append(ops, group...)
	}
	return ops, afterSwitch
}

// apply writes a delta as a whole.
func (k *kernel) apply(d *Delta) {
	ops, _ := k.operations(d)
	for _, op := range ops {
		op()
	}
	put(k.rules, d.Rules)
}

func put[K comparable, V any](m map[K]V, rows map[K]*V) {
	for key, v := range rows {
		if v == nil {
			delete(m, key)
		} else {
			m[key] = *v
		}
	}
}

// one returns the operations that write rows one by one: first those that go, then in some fixed order.
func one[K comparable, V any](m map[K]V, rows map[K]*V, order func(a, b K) int) []func() {
	var out []func()
	keys := slices.SortedFunc(maps.Keys(rows), order)
	goes := func(key K) bool { return rows[key] == nil }
	for _, key := range append(slices.DeleteFunc(slices.Clone(keys), func(key K) bool { return !goes(key) }), slices.DeleteFunc(keys, goes)...) {
		out = append(out, func() { put(m, map[K]*V{key: rows[key]}) })
	}
	return out
}

func (k *kernel) setOps(r *Rows) []func() {
	rows := map[uint16]*uint64{}
	for bit, name := range r.Sets {
		if rows[bit] = &name; name == 0 {
			rows[bit] = nil
		}
	}
	return one(k.sets, rows, cmp.Compare[uint16])
}

func (k *kernel) classOps(r *Rows) []func() { return one(k.classes, r.Classes, cmp.Compare[uint32]) }
func (k *kernel) identityOps(r *Rows) []func() {
	return one(k.identities, r.Identities, cmp.Compare[uint32])
}

// cidrOps also has flows judged in full, as whoever writes ranges must.
func (k *kernel) cidrOps(r *Rows) []func() {
	var out []func()
	for _, op := range one(k.cidrs, r.CIDRs, comparePrefixes) {
		out = append(out, func() { op(); k.epoch += 2; k.fullEpoch = k.epoch })
	}
	return out
}

func (k *kernel) groupOps(r *Rows) []func() {
	rows := map[uint32]*[]Line{}
	for id, lines := range r.Groups {
		if rows[id] = &lines; lines == nil {
			rows[id] = nil
		}
	}
	return one(k.groups, rows, cmp.Compare[uint32])
}

func (k *kernel) remembered() Remembered {
	return Remembered{
		Sets: maps.Clone(k.sets), Classes: maps.Clone(k.classes), Identities: maps.Clone(k.identities), Groups: maps.Clone(k.groups),
		Subjects: maps.Clone(k.subjects), CIDRs: maps.Clone(k.cidrs),
	}
}

// block returns the identity of the narrowest CIDR around an address; 0 if there is none.
func (k *kernel) block(addr netip.Addr) (best uint32) {
	bits := -1
	for p, id := range k.cidrs {
		if addr.IsValid() && p.Contains(addr) && p.Bits() > bits {
			best, bits = id, p.Bits()
		}
	}
	return best
}

// judgement is a decision and what a flow remembers of it.
type judgement struct {
	Decision
	noPolicy            bool // a row was absent
	group, class        uint32
	block, blockOfClass uint32 // 0 where the subject names no CIDR
}

func (k *kernel) decide(c Connection) judgement {
	s, ok := k.subjects[SubjectKey{c.Subject, c.Dir}]
	class, known := k.identities[c.Peer]
	lines, held := k.groups[s.Group]
	known = known || c.Peer == identity.Unknown // class 0 is in no set
	j := judgement{group: s.Group, class: class}
	bits := k.classes[class]
	if block := k.block(c.Addr); known && s.Blocks && block != 0 && c.Peer != identity.Unknown {
		j.block = block
		j.blockOfClass, known = k.identities[block]
		for n, word := range k.classes[j.blockOfClass] {
			bits[n] |= word
		}
	}
	if !ok || !known || s.Lines > 0 && (!held || len(lines) != int(s.Lines)) {
		return judgement{Decision: Decision{Verdict: Deny, ByDefault: true}, noPolicy: true}
	}
	lines = lines[:s.Lines]
	j.Decision = s.walk(lines, false, c, &bits)
	if j.Verdict != Deny {
		if all := s.walk(lines, true, c, &bits); all.Verdict == Deny {
			j.Decision = all
			j.Verdict = AuditDeny
		}
	}
	return j
}

// walk is the verdict of lines that enforce, or of all as if those of audit did. bpf's tests hold the datapath, which finds
// out both in one scan, to the same two walks.
func (s *Subject) walk(lines []Line, audit bool, c Connection, bits *Bitmap) Decision {
	for i := 0; i < len(lines); i++ {
		l := &lines[i]
		v, counts := map[Verdict]Verdict{AuditDeny: Deny, AuditAllow: Allow, AuditPass: Pass}[l.Verdict]
		if !counts {
			v, counts = l.Verdict, true
		} else {
			counts = audit
		}
		switch {
		case !counts || !l.matches(c, bits):
		case v == Pass && l.Set != 0 && c.Peer == identity.Unknown: // nobody knows whether it is passed
			return Decision{Verdict: Deny}
		case v == Pass && int(l.Rule)*LinesPerChunk <= i:
			panic("a line passes backwards")
		case v == Pass:
			i = int(l.Rule)*LinesPerChunk - 1
		default:
			return Decision{Verdict: v, Rule: l.Rule}
		}
	}
	if s.Isolated && (audit || !s.Audit) && (c.Peer != identity.Host || s.Closed) {
		return Decision{Deny, s.DefaultRule, true}
	}
	return Decision{Allow, 0, true}
}

func (l *Line) matches(c Connection, bits *Bitmap) bool {
	denies := l.Verdict == Deny || l.Verdict == AuditDeny
	set := l.Set &^ SetOutside
	in := set == 0 || set < SetCount && bits.Has(set)
	switch {
	case c.Peer == identity.Unknown || set >= SetCount: // it could be anybody
		in = set == 0 || l.Verdict != Allow && l.Verdict != AuditAllow
	case c.Peer == identity.Host && denies:
		in = set != 0 && in // only by lines that name it
	}
	if l.Set != set && c.Peer != identity.World && c.Peer != identity.Unknown {
		in = false
	}
	if !in || l.Proto != 0 && l.Proto != c.Proto {
		return false
	}
	return l.From == 0 && l.To == 0 || hasPorts(c.Proto) && c.Port >= l.From && c.Port <= l.To
}

// roomy limits never matter.
var roomy = Limits{Sets: SetCount, Classes: 16384, Identities: 1 << 20, Chunks: 1 << 16, Subjects: 1 << 16}

// load sets all of a world; subjects are all identities of the local cluster if nil.
func load(e *Engine, w *World, subjects map[uint32]bool) {
	for name, n := range w.Nodes {
		e.SetNode(name, &n)
	}
	for name, clusters := range w.Services {
		e.SetService(name, clusters)
	}
	for name, l := range w.Clusters {
		e.SetCluster(name, l)
	}
	for id, l := range w.Identities {
		e.SetIdentity(id, l)
		if subjects == nil && l[identity.LabelCluster] == w.Cluster {
			e.SetSubject(id, true)
		}
	}
	for id := range subjects {
		e.SetSubject(id, true)
	}
	for id, named := range w.NamedPorts {
		e.SetNamedPorts(id, named)
	}
	for _, m := range w.Policies {
		e.SetPolicy(m.Key(), m)
	}
}

// build returns an engine that has a world, and the kernel's maps.
func build(w *World) (*Engine, *kernel) {
	e, k := NewEngine(Config{Cluster: w.Cluster, Node: w.Node, Limits: roomy}), newKernel()
	load(e, w, nil)
	k.apply(e.Step())
	return e, k
}
