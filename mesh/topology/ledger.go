// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"net/netip"

	"github.com/google/btree"
)

// ledger gives prefixes to owners, as claims does, but one change at a time. Who is earlier keeps what two claim: a claim
// is accepted unless it overlaps with an accepted one of a lower rank. Whatever changes is judged again in the order of
// ranks, and goes on to the claims of higher rank that overlap with it: a change costs the overlaps it touches.
type ledger[O ranked[O]] struct {
	claims  *btree.BTreeG[*claim[O]] // by prefix, so that those inside of a prefix lie beside each other
	lengths [2][129]int              // how many claims of a family have a length
	queue   *btree.BTreeG[*claim[O]] // to be judged, by rank
	touched []*claim[O]              // perhaps changed since the last drain
}

// ranked is an owner of claims. Who compares less keeps what two claim. Of a group, whose owners follow each other, weak
// claims come after all others.
type ranked[O any] interface {
	comparable
	compare(O) int
	compareGroups(O) int
}

// claim of a prefix. Accepted: nobody of a lower rank has what overlaps. Refused: by is who has it, perhaps the same owner.
type claim[O ranked[O]] struct {
	prefix   netip.Prefix
	owner    O
	by       O
	oldBy    O // as it was at the last drain
	times    int32
	weak     bool
	accepted bool
	old      bool // accepted at the last drain
	touched  bool
}

// rank orders claims by group, then strength, then owner, and an owner's from outer to inner prefixes.
func (c *claim[O]) rank(d *claim[O]) int {
	if c.weak != d.weak {
		return cmp.Or(c.owner.compareGroups(d.owner), compareBools(c.weak, d.weak))
	}
	return cmp.Or(c.owner.compare(d.owner), c.prefix.Compare(d.prefix))
}

func newLedger[O ranked[O]]() *ledger[O] {
	return &ledger[O]{
		claims: btree.NewG(16, func(a, b *claim[O]) bool {
			if a.prefix != b.prefix {
				return a.prefix.Compare(b.prefix) < 0
			}
			if a.owner != b.owner {
				return compareOwners(a.owner, b.owner) < 0
			}
			return !a.weak && b.weak
		}),
		queue: btree.NewG(8, func(a, b *claim[O]) bool { return a.rank(b) < 0 }),
	}
}

// compareOwners takes no owner to be before all others, so that a search can start at the first claim of a prefix.
func compareOwners[O ranked[O]](a, b O) int {
	var none O
	switch {
	case a == b:
		return 0
	case a == none:
		return -1
	case b == none:
		return 1
	}
	return a.compare(b)
}

// claim adds a claim. What is claimed twice must be released twice.
func (l *ledger[O]) claim(prefix netip.Prefix, owner O, weak bool) {
	c := &claim[O]{prefix: prefix, owner: owner, weak: weak, times: 1}
	if have, ok := l.claims.Get(c); ok {
		have.times++
		return
	}
	l.claims.ReplaceOrInsert(c)
	l.lengths[family(prefix)][prefix.Bits()]++
	alone := true
	l.overlapping(c, func(*claim[O]) bool { alone = false; return false })
	if alone {
		c.accepted = true
		l.touch(c)
		return
	}
	l.queue.ReplaceOrInsert(c)
}

// release takes a claim back.
func (l *ledger[O]) release(prefix netip.Prefix, owner O, weak bool) {
	c, ok := l.claims.Get(&claim[O]{prefix: prefix, owner: owner, weak: weak})
	if !ok {
		return
	}
	if c.times--; c.times > 0 {
		return
	}
	l.claims.Delete(c)
	l.queue.Delete(c)
	l.lengths[family(prefix)][prefix.Bits()]--
	had := c.accepted
	var none O
	c.accepted, c.by = false, none
	l.touch(c)
	if had {
		l.pass(c)
	}
}

// holder is who has exactly this prefix; the zero owner if nobody has. It is right after settle.
func (l *ledger[O]) holder(prefix netip.Prefix) (owner O) {
	l.at(prefix, func(c *claim[O]) bool {
		if c.accepted {
			owner = c.owner
		}
		return !c.accepted
	})
	return owner
}

// drain judges what is to be judged and calls fn for each claim that is accepted or not, or refused for somebody else,
// where it was otherwise at the last drain.
func (l *ledger[O]) drain(fn func(*claim[O])) {
	for c, ok := l.queue.DeleteMin(); ok; c, ok = l.queue.DeleteMin() {
		l.judge(c)
	}
	for i, c := range l.touched {
		l.touched[i] = nil
		if c.accepted != c.old || c.by != c.oldBy {
			fn(c)
		}
		c.old, c.oldBy, c.touched = c.accepted, c.by, false
	}
	if l.touched = l.touched[:0]; cap(l.touched) > 1024 {
		l.touched = nil
	}
}

// judge decides about a claim; those of lower ranks are decided already.
func (l *ledger[O]) judge(c *claim[O]) {
	var by O
	accepted := true
	if other := l.obstacle(c); other != nil {
		by, accepted = other.owner, false
	}
	if accepted == c.accepted && by == c.by {
		return
	}
	flipped := accepted != c.accepted
	c.accepted, c.by = accepted, by
	l.touch(c)
	if flipped {
		l.pass(c)
	}
}

// obstacle is the accepted claim that keeps another from being accepted: the one around it, or of those inside of it the
// first.
func (l *ledger[O]) obstacle(c *claim[O]) *claim[O] {
	var first *claim[O]
	l.overlapping(c, func(d *claim[O]) bool {
		if d.accepted && d.rank(c) < 0 && (first == nil || d.rank(first) < 0) {
			first = d
		}
		return true
	})
	return first
}

// pass has the claims judged again that a claim is in the way of.
func (l *ledger[O]) pass(c *claim[O]) {
	l.overlapping(c, func(d *claim[O]) bool {
		if c.rank(d) < 0 {
			l.queue.ReplaceOrInsert(d)
		}
		return true
	})
}

func (l *ledger[O]) touch(c *claim[O]) {
	if !c.touched {
		c.touched = true
		l.touched = append(l.touched, c)
	}
}

// overlapping calls fn for all other claims that overlap, until it returns false: those around it, then those of the same
// prefix and inside of it.
func (l *ledger[O]) overlapping(c *claim[O], fn func(*claim[O]) bool) {
	goOn := true
	for bits, n := range l.lengths[family(c.prefix)][:c.prefix.Bits()] {
		if n == 0 {
			continue
		}
		if l.at(shorten(c.prefix, bits), func(d *claim[O]) bool { goOn = fn(d); return goOn }); !goOn {
			return
		}
	}
	l.claims.AscendGreaterOrEqual(&claim[O]{prefix: c.prefix}, func(d *claim[O]) bool {
		if !c.prefix.Contains(d.prefix.Addr()) {
			return false
		}
		return d == c || fn(d)
	})
}

// at calls fn for the claims of a prefix, in order of their owners, until it returns false.
func (l *ledger[O]) at(prefix netip.Prefix, fn func(*claim[O]) bool) {
	l.claims.AscendGreaterOrEqual(&claim[O]{prefix: prefix}, func(d *claim[O]) bool {
		return d.prefix == prefix && fn(d)
	})
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}
