// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"slices"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// cursor is how far one stream got. It holds no records, so a stream that waits keeps none from being replaced.
type cursor struct {
	seen     []uint64 // for each changelog, the revision up to which it was sent; empty: the stream has nothing
	clusters uint64   // version of the cluster states that were sent
	// atBegin are the cluster states from when the snapshot under way began: a snapshot that ends before it was sent all that came
	// meanwhile says no more of clusters than that. Without a snapshot there are none, so a stream that waits keeps no old ones.
	atBegin clusterStates

	sent []int // from each changelog, since all of them had their turn

	snapshot bool // a snapshot is under way
	begun    bool // its first batch was sent
	// owed are, while a snapshot is under way, the keys that it has still to mention of changelogs that are rewritten faster
	// than the stream takes them. What is rewritten after they were listed follows the snapshot.
	owed map[int][]string
}

// resume places a new stream: where the agent left off if the hub still knows what was removed since, else at the start.
func (h *Hub) resume(p *relayv1.ResumePoint) cursor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	r := p.GetRevision()
	if p.GetEpoch() != h.epoch || r > h.revision || r < h.forgotten {
		return cursor{}
	}
	return cursor{seen: slices.Repeat([]uint64{r}, len(h.order.logs))}
}

// begin starts a snapshot. Removals from before it don't matter: what a snapshot doesn't mention is gone.
func (h *Hub) begin(c *cursor) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	c.seen = make([]uint64, len(h.order.logs))
	for i := h.order.puts; i < len(c.seen); i++ {
		c.seen[i] = h.revision
	}
	c.snapshot, c.begun, c.owed, c.atBegin = true, false, nil, h.clusters
}

// ended notes that no snapshot is under way any more.
func (c *cursor) ended() {
	c.snapshot, c.begun, c.owed, c.atBegin = false, false, nil, clusterStates{}
}

// next is what a stream should send now.
type next struct {
	batch wireBatch
	// behind: nothing can be sent before a snapshot begins, because removals were forgotten that the stream has not sent.
	behind bool
	// wait is closed when there is more to send; nil if there is more already.
	wait <-chan struct{}
}

// next moves a stream on by one batch, of the newest values. The lock is held for no longer than that takes.
func (h *Hub) next(c *cursor) next {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(c.seen) == 0 || slices.Min(c.seen[h.order.puts:]) < h.forgotten {
		return next{behind: true}
	}
	b := wireBatch{head: &relayv1.Batch{SnapshotStart: c.snapshot && !c.begun}}
	all, ended := h.collect(c, &b)
	c.begun = c.snapshot
	switch {
	case ended:
		b.head.SnapshotEnd, b.head.Clusters = true, c.atBegin.states
		b.head.At = h.point(slices.Min(c.seen))
		c.clusters = c.atBegin.version
		c.ended()
	case all:
		b.head.SnapshotEnd = c.snapshot
		b.head.At = h.point(h.revision)
		if c.snapshot || h.clusters.version != c.clusters {
			b.head.Clusters = h.clusters.states
		}
		c.clusters = h.clusters.version
		c.ended()
		return next{batch: b, wait: h.changed}
	case !c.snapshot:
		// What is before the least of all was sent. A snapshot has no place to resume before its end.
		b.head.At = h.point(slices.Min(c.seen))
	}
	return next{batch: b}
}

// collect fills a batch, changelog by changelog, and reports whether nothing is left, or else whether a snapshot may end. A
// later changelog is begun only once all before it are empty, at every call anew: so no record is sent before one that it
// names. But a cluster that rewrites its records faster than a stream takes them must not keep policies and removals from an
// agent for ever: a changelog that was sent more than twice over lets the others have their turn. A snapshot then mentions what
// else there is in it, once; what it owes it mentions to the end, also when the changelog has grown again.
func (h *Hub) collect(c *cursor, b *wireBatch) (all, ended bool) {
	size, all := 0, true
	if c.sent == nil {
		c.sent = make([]int, len(h.order.logs))
	}
	for i := range h.order.logs {
		if _, owes := c.owed[i]; owes || c.sent[i] > 2*h.order.logs[i].len()+fewSlots {
			all = false
			if c.snapshot && !h.mention(c, i, b, &size) {
				return false, false
			}
			continue
		}
		for _, s := range h.order.logs[i].after(c.seen[i]) {
			if s.entry == nil {
				continue
			}
			size += len(s.entry.encoded)
			if h.limits.exceeded(len(b.entries)+1, size) {
				h.skipEmpty(c, i+1)
				return false, false
			}
			b.entries = append(b.entries, s.entry)
			c.seen[i] = s.revision
			c.sent[i]++
		}
		c.seen[i] = h.revision
	}
	clear(c.sent)
	return all, !all && c.snapshot
}

// mention adds the keys that a snapshot owes of a changelog, with their newest values, and reports whether that is all of them.
// A removal needs no mention.
func (h *Hub) mention(c *cursor, i int, b *wireBatch, size *int) bool {
	if _, listed := c.owed[i]; !listed && i < h.order.puts {
		if c.owed == nil {
			c.owed = map[int][]string{}
		}
		for _, s := range h.order.logs[i].after(c.seen[i]) {
			if s.entry != nil {
				c.owed[i] = append(c.owed[i], s.entry.key)
			}
		}
		c.owed[i] = slices.Clip(c.owed[i])
		c.seen[i] = h.revision
	}
	for len(c.owed[i]) > 0 {
		e := h.entries[c.owed[i][0]]
		if e == nil || e.removed {
			c.owed[i] = c.owed[i][1:]
			continue
		}
		if *size += len(e.encoded); h.limits.exceeded(len(b.entries)+1, *size) {
			return false
		}
		b.entries = append(b.entries, e)
		c.owed[i] = c.owed[i][1:]
	}
	return true
}

// skipEmpty notes which of the remaining changelogs have nothing for a stream.
func (h *Hub) skipEmpty(c *cursor, from int) {
	for i := from; i < len(c.seen); i++ {
		if h.order.logs[i].newest() <= c.seen[i] {
			c.seen[i] = h.revision
		}
	}
}

// batchLimits bound one batch. One change always fits.
type batchLimits struct{ changes, bytes int }

func (l batchLimits) exceeded(changes, bytes int) bool {
	return changes > l.changes || changes > 1 && bytes > l.bytes
}
