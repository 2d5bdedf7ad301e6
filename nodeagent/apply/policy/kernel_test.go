// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

var (
	errRefused = errors.New("refused")
	errKilled  = errors.New("the agent is gone")
)

// faults decide which operations on the kernel's maps fail, and look at the maps after each that didn't.
type faults struct {
	refuse func() bool
	life   int // operations until the agent is killed; negative: it lives on
	after  func()
}

func (f *faults) begin() error {
	if f.life == 0 {
		return errKilled
	}
	f.life--
	if f.refuse() {
		return errRefused
	}
	return nil
}

// fake is a map of the kernel's, written one row after another.
type fake[K, V comparable] struct {
	rows   map[K]V
	size   int // 0: no limit
	faults *faults
}

func (f *fake[K, V]) Update(_ context.Context, keys []K, values []V) []error {
	errs := make([]error, len(keys))
	for i, key := range keys {
		if errs[i] = f.faults.begin(); errs[i] != nil {
			continue
		}
		if _, has := f.rows[key]; !has && f.size > 0 && len(f.rows) >= f.size {
			errs[i] = errors.New("the map is full")
			continue
		}
		f.rows[key] = values[i]
		f.faults.after()
	}
	return errs
}

func (f *fake[K, V]) Delete(_ context.Context, keys []K) []error {
	errs := make([]error, len(keys))
	for i, key := range keys {
		if errs[i] = f.faults.begin(); errs[i] == nil {
			delete(f.rows, key)
			f.faults.after()
		}
	}
	return errs
}

func (f *fake[K, V]) Have(_ context.Context, visit func([]K, []V)) error {
	if err := f.faults.begin(); err != nil {
		return err
	}
	for _, key := range slices.Collect(maps.Keys(f.rows)) {
		visit([]K{key}, []V{f.rows[key]})
	}
	return nil
}

// kernel is what outlives the agent.
type kernel struct {
	faults   faults
	sets     *fake[uint32, uint64]
	classes  *fake[uint32, bpf.ClassSets]
	members  *fake[uint32, bpf.IdentityClass]
	groups   *fake[bpf.GroupKey, bpf.GroupChunk]
	subjects *fake[bpf.SubjectKey, bpf.Subject]
	blocks   *fake[netip.Prefix, uint32]
	policy   uint32
	full     uint32
	fences   int
}

func newKernel() *kernel {
	k := &kernel{}
	k.faults = faults{refuse: func() bool { return false }, life: -1, after: func() {}}
	k.sets = &fake[uint32, uint64]{rows: map[uint32]uint64{}, faults: &k.faults}
	k.classes = &fake[uint32, bpf.ClassSets]{rows: map[uint32]bpf.ClassSets{}, faults: &k.faults}
	k.members = &fake[uint32, bpf.IdentityClass]{rows: map[uint32]bpf.IdentityClass{}, faults: &k.faults}
	k.groups = &fake[bpf.GroupKey, bpf.GroupChunk]{rows: map[bpf.GroupKey]bpf.GroupChunk{}, faults: &k.faults}
	k.subjects = &fake[bpf.SubjectKey, bpf.Subject]{rows: map[bpf.SubjectKey]bpf.Subject{}, faults: &k.faults}
	k.blocks = &fake[netip.Prefix, uint32]{rows: map[netip.Prefix]uint32{}, faults: &k.faults}
	return k
}

func (k *kernel) driver() Driver {
	return Driver{Sets: k.sets, Classes: k.classes, Members: k.members, Blocks: k.blocks, Groups: k.groups, Subjects: k.subjects, Epochs: k}
}

func (k *kernel) Epochs() (uint32, uint32, error) {
	if err := k.faults.begin(); err != nil {
		return 0, 0, err
	}
	return k.policy, k.full, nil
}

func (k *kernel) SetEpochs(policy, full uint32) error {
	if err := k.faults.begin(); err != nil {
		return err
	}
	k.policy, k.full = policy, full
	k.faults.after()
	return nil
}

func (k *kernel) Fence() error {
	if err := k.faults.begin(); err != nil {
		return err
	}
	k.fences++
	return nil
}

// packet is what policy is asked about. A peer with an address is of the world.
type packet struct {
	subject, peer uint32
	addr          netip.Addr
	port          uint16
}

// allows reads the maps as bpf/lib/policy.h does; every packet is TCP and leaves the subject.
func (k *kernel) allows(p packet) bool {
	peer := p.peer
	if p.addr.IsValid() {
		peer = identity.World
	}
	subject, ok := k.subjects.rows[bpf.SubjectKey{Identity: p.subject, Dir: bpf.DirEgress, Bank: bankOf(k.policy)}]
	if !ok {
		return false
	}
	member, ok := k.members.rows[peer]
	if !ok {
		return false
	}
	class := k.classes.rows[member.Class] // an array: zero where nothing was written
	if block := k.block(p.addr); block != 0 && subject.Flags&bpf.SubjectBlocks != 0 {
		member, ok := k.members.rows[block]
		if !ok {
			return false
		}
		for i, word := range k.classes.rows[member.Class].Sets {
			class.Sets[i] |= word
		}
	}
	for i := range subject.Lines {
		chunk, ok := k.groups.rows[bpf.GroupKey{Group: subject.Group, Chunk: i / bpf.GroupLines}]
		if !ok {
			return false
		}
		l := chunk.Line[i%bpf.GroupLines]
		in := l.Set == 0
		if l.Set < bpf.SetCount {
			in = in || class.Sets[l.Set/64]>>(l.Set%64)&1 != 0
		} else {
			in = l.Verdict != bpf.VerdictAllow // nobody knows whom it means
		}
		if in && (l.PortFrom == 0 || l.PortFrom <= p.port && p.port <= l.PortTo) {
			return l.Verdict == bpf.VerdictAllow
		}
	}
	return subject.Flags&bpf.SubjectIsolated == 0
}

// block finds the narrowest CIDR; 0: there is none.
func (k *kernel) block(addr netip.Addr) (best uint32) {
	bits := -1
	for prefix, id := range k.blocks.rows {
		if addr.IsValid() && prefix.Contains(addr) && prefix.Bits() > bits {
			best, bits = id, prefix.Bits()
		}
	}
	return best
}
