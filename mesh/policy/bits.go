// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// peerSet returns the set of a rule's peers.
func (e *Engine) peerSet(owner string, r *rule) *set {
	s := e.sets[r.key]
	if s == nil {
		s = e.newSet(&set{key: r.key, peers: r.peers, orUnknown: r.kind.denies()})
	}
	s.asks(owner)
	return s
}

func (e *Engine) newSet(s *set) *set {
	s.users = map[*profile]struct{}{}
	e.sets[s.key] = s
	e.bitless[s] = struct{}{}
	e.idle[s] = struct{}{} // until somebody uses it
	return s
}

// dropUses takes a profile out of the users of sets and families that it had before.
func (e *Engine) dropUses(p *profile, sets []*set, families []*family) {
	for _, s := range sets {
		if !slices.Contains(p.sets, s) {
			delete(s.users, p)
			e.idle[s] = struct{}{}
		}
	}
	for _, f := range families {
		if !slices.Contains(p.families, f) {
			delete(f.users, p)
			e.lonely[f] = struct{}{}
		}
	}
}

// bitsOf computes the sets of an identity.
func (e *Engine) bitsOf(i *ident) Bitmap {
	var out Bitmap
	switch {
	case i.labels != nil:
		e.terms.ofPod(e.clusters, i.labels, i.labels[identity.LabelNamespace], &out)
		e.terms.ofPorts(i.id, e.named[i.id], &out)
	case i.cidr != nil:
		e.terms.ofCIDR(i.cidr.prefix, &out)
	default: // of the world, or of nodes
		e.terms.ofEntity(i.id, &out)
	}
	return out
}

// members computes the identities of a set.
func (e *Engine) members(s *set) []*ident {
	if s.family != nil {
		return e.callersOf(s.family, s.number)
	}
	if len(s.peers) == 1 {
		return e.peerMembers(&s.peers[0], s.orUnknown)
	}
	e.seq++
	var out []*ident
	for n := range s.peers {
		for _, i := range e.peerMembers(&s.peers[n], s.orUnknown) {
			if i.seen != e.seq {
				i.seen = e.seq
				out = append(out, i)
			}
		}
	}
	return out
}

func (e *Engine) peerMembers(p *peer, orUnknown bool) []*ident {
	switch {
	case p.pods != nil:
		return e.index.find(p.pods, orUnknown)
	case p.entity == identity.World:
		return []*ident{e.world}
	case p.entity == identity.RemoteNode:
		return []*ident{e.remoteNode, e.host}
	case p.entity == otherNodes:
		return []*ident{e.remoteNode}
	case p.entity == identity.Host:
		return []*ident{e.host}
	}
	return e.cidrs.within(p.cidr, p.except)
}

// adoptBits gives sets the bits that they had before a restart. What has changed since shows in findStale.
func (e *Engine) adoptBits() {
	if e.started {
		return
	}
	for _, s := range e.wanting() {
		bit, ok := e.adopt[s.hash()]
		if !ok || !e.cidrs.room(prefixes(s.peers)) {
			continue
		}
		e.useCIDRs(s)
		delete(e.adopt, s.hash())
		delete(e.bitless, s)
		s.bit, e.byBit[bit], s.owner = bit, s, s.owners[0]
		e.hold(s, 1)
		e.terms.add(s)
	}
	for _, bit := range e.adopt {
		e.freeing = append(e.freeing, bit)
	}
	e.adopt = nil
}

// findStale finds the sets with known members that are others now.
func (e *Engine) findStale() {
	for i := range e.changed {
		if i.class == nil {
			continue
		}
		want := e.bitsOf(i)
		for n := range want {
			for diff := want[n] ^ i.class.bits[n]; diff != 0; diff &= diff - 1 {
				if s := e.byBit[n*64+bits.TrailingZeros64(diff)]; s != nil {
					s.stale = true
				}
			}
		}
	}
	clear(e.changed)
}

// wanting returns the sets in use that need a bit, or another one.
func (e *Engine) wanting() []*set {
	var out []*set
	for s := range e.bitless {
		if len(s.users) > 0 {
			out = append(out, s)
		}
	}
	for _, s := range e.byBit {
		if s != nil && s.stale && len(s.users) > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *set) int { return cmp.Compare(a.key, b.key) })
	return out
}

// assignBits gives sets their bits. CIDRs come first: their identities must be in the right sets of both sides of the
// switch before an address has one.
func (e *Engine) assignBits(d *Delta) {
	list := e.fairly(e.wanting())
	fresh := make(map[*set]uint16, len(list))
	for _, s := range list {
		if s.bit == 0 && (!e.cidrs.room(prefixes(s.peers)) || !e.mayTake(s) || s.refused == e.classes.freed) {
			continue
		}
		bit, ok := e.bits.take(&e.forget)
		if !ok {
			continue
		}
		if s.bit == 0 {
			e.useCIDRs(s)
			e.hold(s, 1)
		}
		fresh[s] = uint16(bit)
	}
	e.placeCIDRs(d)
	for _, s := range list {
		bit, ok := fresh[s]
		if !ok && s.bit == 0 {
			continue // as before
		}
		maps.Copy(e.unfinished, s.users)
		members := e.members(s)
		if ok && !e.mayAssign(s, members) {
			s.refused, ok = e.classes.freed, false
			e.bits.give(uint32(bit))
		}
		switch {
		case s.bit != 0:
			e.freeing = append(e.freeing, s.bit)
			e.byBit[s.bit] = nil
		case !ok: // refused
			e.releaseCIDRs(s)
			e.hold(s, -1)
			continue
		}
		if !ok {
			e.loseBit(s)
			continue
		}
		if s.bit == 0 {
			s.bit = bit
			e.terms.add(s)
			delete(e.bitless, s)
		}
		s.bit, s.stale, e.byBit[bit] = bit, false, s
		d.Before.Sets[bit] = s.hash()
		for _, i := range e.classes.assign(bit, members) {
			e.waiting[i] = struct{}{}
		}
	}
}

// loseBit leaves a set without a bit.
func (e *Engine) loseBit(s *set) {
	if s.bit != 0 {
		e.terms.remove(s)
		e.releaseCIDRs(s)
		e.hold(s, -1)
	}
	s.bit, s.stale = 0, false
	e.bitless[s] = struct{}{}
}

// freeSets removes sets that nobody uses, and gives back their bits and the ones that were replaced.
func (e *Engine) freeSets(d *Delta) {
	for s := range e.idle {
		if len(s.users) > 0 || e.sets[s.key] != s {
			continue
		}
		if s.bit != 0 {
			e.freeing = append(e.freeing, s.bit)
			e.byBit[s.bit] = nil
			e.loseBit(s)
		}
		delete(e.bitless, s)
		delete(e.sets, s.key)
		if s.family != nil {
			delete(s.family.sets, s.number)
		}
	}
	clear(e.idle)
	e.freeFamilies()
	e.freeBits(d)
}

func (e *Engine) freeBits(d *Delta) {
	slices.Sort(e.freeing)
	var mask Bitmap
	for _, bit := range e.freeing {
		mask.add(bit)
		e.bits.give(uint32(bit))
		d.After.Sets[bit] = 0
	}
	if len(e.freeing) > 0 || len(e.classes.twins) > 0 {
		e.classes.clear(&mask)
	}
	e.freeing = e.freeing[:0]
}
