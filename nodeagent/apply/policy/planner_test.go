// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Selectors of the tests' policies: everybody, pods with one of three labels, and addresses in one of two ranges, of
// which the second lies within the first.
const (
	everybody = iota
	label1
	label2
	label3
	wide
	narrow
)

var ranges = map[int]netip.Prefix{wide: netip.MustParsePrefix("10.0.0.0/8"), narrow: netip.MustParsePrefix("10.1.0.0/16")}

func rangeIdentity(selector int) uint32 { return identity.CIDRBit | uint32(selector) }

// rule is a line before selectors have numbers.
type rule struct {
	selector int
	port     uint16 // 0: any
	deny     bool
}

// policies of the subjects that have any.
type policies map[uint32]subjectPolicy

type subjectPolicy struct {
	isolated bool
	rules    []rule
}

// labels of the pods, as bits.
type labels map[uint32]uint8

// allows is the oracle.
func allows(pods labels, all policies, p packet) bool {
	for _, r := range all[p.subject].rules {
		if matches(pods, r.selector, p) && (r.port == 0 || r.port == p.port) {
			return !r.deny
		}
	}
	return !all[p.subject].isolated
}

func matches(pods labels, selector int, p packet) bool {
	switch {
	case selector == everybody:
		return true
	case selector >= wide:
		return p.addr.IsValid() && ranges[selector].Contains(p.addr)
	}
	return !p.addr.IsValid() && pods[p.peer]&(1<<selector) != 0
}

// planner numbers selectors, classes and groups, and keeps the contract that package policy states.
type planner struct {
	bits map[int]uint32 // by selector
	used map[int]bool   // selectors of the last plan
	pods labels         // of the last plan
	rows planned
}

type planned struct {
	sets     map[uint32]uint64
	classes  map[uint32]bpf.ClassSets
	members  map[uint32]bpf.IdentityClass
	groups   map[bpf.GroupKey]bpf.GroupChunk
	subjects map[bpf.SubjectKey]bpf.Subject
	blocks   map[netip.Prefix]uint32
}

// newPlanner begins with what the kernel holds.
func newPlanner(m Memory) *planner {
	p := &planner{bits: map[int]uint32{}, used: map[int]bool{}, pods: labels{}, rows: planned{
		sets: m.Sets, classes: m.Classes, members: m.Members, groups: m.Groups, subjects: m.Subjects,
		blocks: maps.Clone(m.Blocks),
	}}
	for bit, name := range m.Sets {
		p.bits[int(name)], p.used[int(name)] = bit, true
	}
	for prefix := range m.Blocks {
		for selector, r := range ranges {
			if r == prefix {
				p.used[selector] = true
			}
		}
	}
	for id, m := range m.Members {
		if !identity.IsCIDR(id) && id != identity.World {
			p.pods[id] = uint8(m.Class - 16)
		}
	}
	return p
}

// plan makes the change from the last world to this one.
func (p *planner) plan(pods labels, all policies) Change {
	used := map[int]bool{}
	for _, s := range all {
		for _, r := range s.rules {
			if r.selector != everybody {
				used[r.selector] = true
			}
		}
	}
	p.number(used)
	// Before: who was there and still is, with the numbers of both policies.
	stay := maps.Clone(pods)
	maps.DeleteFunc(stay, func(id uint32, _ uint8) bool { _, was := p.pods[id]; return !was })
	both := maps.Clone(used)
	maps.Copy(both, p.used)
	before := p.rowsOf(stay, all, both)
	maps.Copy(before.groups, p.rows.groups)
	for class, sets := range p.rows.classes {
		if _, has := before.classes[class]; !has {
			before.classes[class] = sets // cleared afterwards
		}
	}
	maps.DeleteFunc(p.bits, func(selector int, _ uint32) bool { return !used[selector] })
	last := p.rows
	after := p.rowsOf(pods, all, used)
	for id := range pods { // the classes of those who come are there before
		class := after.members[id].Class
		if sets, has := after.classes[class]; has && before.classes[class] == (bpf.ClassSets{}) {
			before.classes[class] = sets
		}
	}
	p.rows, p.used, p.pods = after, used, pods
	return Change{Before: diff(last, before), Subjects: changes(last.subjects, after.subjects), After: diff(before, after)}
}

func (p *planner) number(used map[int]bool) {
	taken := map[uint32]bool{}
	for _, bit := range p.bits {
		taken[bit] = true
	}
	for _, selector := range slices.Sorted(maps.Keys(used)) {
		if _, has := p.bits[selector]; has {
			continue
		}
		bit := uint32(1)
		for taken[bit] {
			bit++
		}
		p.bits[selector], taken[bit] = bit, true
	}
}

func diff(from, to planned) Rows {
	return Rows{
		Sets: changes(from.sets, to.sets), Classes: changes(from.classes, to.classes), Members: changes(from.members, to.members),
		Blocks: changes(from.blocks, to.blocks), Groups: changes(from.groups, to.groups),
	}
}

func changes[K, V comparable](from, to map[K]V) map[K]*V {
	out := map[K]*V{}
	for key := range from {
		if _, keep := to[key]; !keep {
			out[key] = nil
		}
	}
	for key, value := range to {
		if was, had := from[key]; !had || was != value {
			out[key] = &value
		}
	}
	return out
}

func (p *planner) rowsOf(pods labels, all policies, used map[int]bool) planned {
	out := planned{
		sets: map[uint32]uint64{}, classes: map[uint32]bpf.ClassSets{}, members: map[uint32]bpf.IdentityClass{},
		groups: map[bpf.GroupKey]bpf.GroupChunk{}, subjects: map[bpf.SubjectKey]bpf.Subject{},
		blocks: map[netip.Prefix]uint32{},
	}
	for selector, bit := range p.bits {
		out.sets[bit] = uint64(selector)
	}
	add := func(id, class uint32, in packet) {
		var sets bpf.ClassSets
		for selector, bit := range p.bits {
			if matches(pods, selector, in) {
				sets.Sets[bit/64] |= 1 << (bit % 64)
			}
		}
		out.members[id] = bpf.IdentityClass{Class: class}
		if sets != (bpf.ClassSets{}) {
			out.classes[class] = sets
		}
	}
	for id, bits := range pods {
		add(id, 16+uint32(bits), packet{peer: id})
	}
	add(identity.World, 1, packet{addr: netip.MustParseAddr("192.0.2.1")})
	for selector, prefix := range ranges {
		if used[selector] {
			// The first address of the wide range is not in the narrow one.
			add(rangeIdentity(selector), uint32(selector), packet{addr: prefix.Addr()})
			out.blocks[prefix] = rangeIdentity(selector)
		}
	}
	for subject, s := range all {
		out.subjects[bpf.SubjectKey{Identity: subject, Dir: bpf.DirEgress}] = p.subject(s, out.groups)
	}
	return out
}

func (p *planner) subject(s subjectPolicy, groups map[bpf.GroupKey]bpf.GroupChunk) bpf.Subject {
	row := bpf.Subject{Lines: uint32(len(s.rules))}
	if s.isolated {
		row.Flags |= bpf.SubjectIsolated
	}
	chunks := map[uint32]bpf.GroupChunk{}
	hash := fnv.New32a()
	for i, r := range s.rules {
		l := bpf.PolicyLine{PortFrom: r.port, PortTo: r.port, Verdict: bpf.VerdictAllow}
		if r.selector >= wide {
			row.Flags |= bpf.SubjectBlocks
		}
		if r.selector != everybody {
			l.Set = uint16(p.bits[r.selector])
		}
		if r.deny {
			l.Verdict = bpf.VerdictDeny
		}
		chunk := chunks[uint32(i)/bpf.GroupLines]
		chunk.Line[i%bpf.GroupLines] = l
		chunks[uint32(i)/bpf.GroupLines] = chunk
		_ = binary.Write(hash, binary.LittleEndian, l)
	}
	if len(s.rules) > 0 {
		row.Group = max(hash.Sum32(), 1)
	}
	for n, chunk := range chunks {
		groups[bpf.GroupKey{Group: row.Group, Chunk: n}] = chunk
	}
	return row
}
