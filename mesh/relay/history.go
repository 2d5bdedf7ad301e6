// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// history remembers which key changed at which of the newest revisions. Values are looked up when they are sent, so a key
// that changed often is sent once. Revisions have no gaps, so a revision is its own place in the ring.
type history struct {
	keys   []string
	size   uint64
	newest uint64
}

func newHistory(size int) *history { return &history{size: uint64(size)} }

// push records the next revision's key and gives the key that fell out of memory with its revision, if one did.
func (h *history) push(key string) (revision uint64, dropped string) {
	h.newest++
	if h.newest <= h.size {
		h.keys = append(h.keys, key)
		return 0, ""
	}
	i := (h.newest - 1) % h.size
	dropped, h.keys[i] = h.keys[i], key
	return h.newest - h.size, dropped
}

// covers tells whether all changes after a revision are still known.
func (h *history) covers(revision uint64) bool {
	return revision <= h.newest && h.newest-revision <= h.size
}

func (h *history) key(revision uint64) string { return h.keys[(revision-1)%h.size] }
