// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

// queue holds what changed and is not on the disk yet, encoded, once a key. The disk and the queue together are what the
// tables hold, so while a disk takes nothing the queue grows to the size of all records and not further: a record that
// comes and goes meanwhile leaves nothing behind.
type queue struct {
	changes map[string]queued
	bytes   int
}

type queued struct {
	change []byte
	// onDisk says that the disk may hold an earlier record under this key, so that a removal must be written too.
	onDisk bool
}

func newQueue() *queue { return &queue{changes: map[string]queued{}} }

// add queues a change. held says whether there was a record under this key before it.
func (q *queue) add(key string, change []byte, gone, held bool) {
	before, queuedBefore := q.changes[key]
	onDisk := held
	if queuedBefore {
		onDisk = before.onDisk
		q.remove(key, before)
	}
	if gone && !onDisk {
		return
	}
	q.changes[key] = queued{change: change, onDisk: onDisk}
	q.bytes += len(change)
}

func (q *queue) remove(key string, c queued) {
	delete(q.changes, key)
	q.bytes -= len(c.change)
}

// portion is a part of the queue on its way to the disk.
type portion struct {
	keys    []string
	changes [][]byte
}

// take gives some changes, about as many bytes as wanted but at least one change, and forgets them.
func (q *queue) take(bytes int) portion {
	n := len(q.changes)
	if bytes < q.bytes {
		n = n*bytes/q.bytes + 1 // changes are of much the same size
	}
	p := portion{keys: make([]string, 0, n), changes: make([][]byte, 0, n)}
	for key, c := range q.changes {
		if bytes <= 0 {
			break
		}
		bytes -= len(c.change)
		p.keys, p.changes = append(p.keys, key), append(p.changes, c.change)
		q.remove(key, c)
	}
	if len(q.changes) == 0 {
		q.changes = map[string]queued{} // a map keeps the size that it once had
	}
	return p
}

// giveBack queues again what could not be written. What was queued meanwhile is newer.
func (q *queue) giveBack(p portion) {
	for i, key := range p.keys {
		if _, newer := q.changes[key]; newer {
			continue
		}
		q.changes[key] = queued{change: p.changes[i], onDisk: true}
		q.bytes += len(p.changes[i])
	}
}
