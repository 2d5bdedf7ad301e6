// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// group is lines under an id made from their content and from what else a subject's row says. It never changes.
type group struct {
	id    uint32
	hash  uint64
	row   Subject
	lines []Line
	refs  int // profiles
}

// groups shares groups, and keeps their rows within the size of the map.
type groups struct {
	byID   map[uint32]*group
	kernel map[uint32][]Line // what the kernel held at the start and no group took over yet
	// recent are the contents of ids that flows may remember: such an id is not given to another content.
	recent map[uint32]uint64
	chunks int
	limit  int
	idle   []*group
	fresh  []*group // new rows
}

// maxRecent bounds groups.recent: beyond it flows are made to forget.
const maxRecent = 4096

func newGroups(limit int, kernel map[uint32][]Line) *groups {
	g := &groups{byID: map[uint32]*group{}, kernel: map[uint32][]Line{}, recent: map[uint32]uint64{}, limit: limit}
	for id, lines := range kernel {
		g.kernel[id] = lines
		g.chunks += chunks(lines)
	}
	return g
}

func chunks(lines []Line) int { return (len(lines) + LinesPerChunk - 1) / LinesPerChunk }

// groupHash never has 0 in the lower half, which is the id.
func groupHash(row Subject, lines []Line) uint64 {
	h := fnv.New64a()
	var b [12]byte
	if row.Isolated {
		b[0] = 1
	}
	if row.Audit {
		b[1] = 1
	}
	if row.Blocks {
		b[2] = 1
	}
	if row.Closed {
		b[3] = 1
	}
	binary.LittleEndian.PutUint32(b[4:], row.DefaultRule)
	h.Write(b[:])
	for _, l := range lines {
		binary.LittleEndian.PutUint16(b[0:], l.Set)
		binary.LittleEndian.PutUint16(b[2:], l.From)
		binary.LittleEndian.PutUint16(b[4:], l.To)
		b[6], b[7] = l.Proto, uint8(l.Verdict)
		binary.LittleEndian.PutUint32(b[8:], l.Rule)
		h.Write(b[:])
	}
	sum := h.Sum64()
	sum ^= sum >> 32
	if uint32(sum) == 0 {
		sum++
	}
	return sum
}

// get returns the group of a content, and counts a user of it. False: the map has no room for it.
func (g *groups) get(row Subject, lines []Line) (*group, bool) {
	hash := groupHash(row, lines)
	for id := uint32(hash); ; id++ {
		if have := g.byID[id]; have != nil {
			if have.is(row, lines) {
				have.refs++
				return have, true
			}
			continue
		}
		if other, is := g.recent[id]; id == 0 || is && other != hash {
			continue
		}
		held, written := g.kernel[id]
		if written && !slices.Equal(held, lines) {
			continue
		}
		n := &group{id: id, hash: hash, row: row, lines: lines, refs: 1}
		if written {
			delete(g.kernel, id)
		} else {
			if g.chunks+chunks(lines) > g.limit {
				return nil, false
			}
			g.chunks += chunks(lines)
			g.fresh = append(g.fresh, n)
		}
		g.byID[id] = n
		return n, true
	}
}

func (n *group) is(row Subject, lines []Line) bool {
	return n.row.base() == row.base() && slices.Equal(n.lines, lines)
}

func (g *groups) release(n *group) {
	n.refs--
	if n.refs == 0 {
		g.idle = append(g.idle, n)
	}
}

// flush hands over the rows that are new.
func (g *groups) flush(rows map[uint32][]Line) {
	for _, n := range g.fresh {
		if n.refs > 0 && len(n.lines) > 0 {
			rows[n.id] = n.lines
		}
	}
	g.fresh = nil
}

// sweep removes groups that nobody uses any more.
func (g *groups) sweep(rows map[uint32][]Line) (freed bool) {
	for _, n := range g.idle {
		if n.refs > 0 || g.byID[n.id] != n {
			continue
		}
		delete(g.byID, n.id)
		g.recent[n.id] = n.hash
		g.chunks -= chunks(n.lines)
		if len(n.lines) > 0 {
			rows[n.id] = nil
			freed = true
		}
	}
	g.idle = nil
	for id, lines := range g.kernel {
		rows[id] = nil
		freed = true
		g.chunks -= chunks(lines)
	}
	clear(g.kernel)
	return freed
}
