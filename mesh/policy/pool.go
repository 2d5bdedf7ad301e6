// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

// pool hands out numbers. One that was given back may still be remembered by a flow in the datapath: it is handed out
// again only after every flow was made to forget (Delta.Forget), and not in the step that gave it back.
type pool struct {
	limit uint32 // numbers are below it
	next  uint32 // the lowest that was never handed out
	clean []uint32
	dirty []uint32 // given back in an earlier step
	freed []uint32 // given back in this step
	used  int
}

// newPool hands out the numbers from 1 that are not in use.
func newPool(limit int, inUse func(uint32) bool) *pool {
	p := &pool{limit: uint32(max(limit, 1)), next: 1}
	for n := p.limit - 1; n > 0; n-- {
		if inUse(n) {
			p.used++
			if p.next == 1 {
				p.next = n + 1
			}
		} else if p.next > 1 {
			p.clean = append(p.clean, n)
		}
	}
	return p
}

// take hands out a number. flows must forget if forget is set.
func (p *pool) take(forget *bool) (n uint32, ok bool) {
	switch {
	case len(p.clean) > 0:
	case p.next < p.limit:
		p.next++
		p.used++
		return p.next - 1, true
	case len(p.dirty) > 0:
		*forget = true
		p.clean, p.dirty = p.dirty, p.clean[:0]
	default:
		return 0, false
	}
	n = p.clean[len(p.clean)-1]
	p.clean = p.clean[:len(p.clean)-1]
	p.used++
	return n, true
}

func (p *pool) give(n uint32) {
	if n >= p.limit {
		return // in use since before the map shrank
	}
	p.freed = append(p.freed, n)
	p.used--
}

// step begins another step.
func (p *pool) step() {
	p.dirty = append(p.dirty, p.freed...)
	p.freed = p.freed[:0]
}
