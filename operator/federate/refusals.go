// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"container/list"
	"hash/maphash"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// maxRefusals is how many refused records of a cluster are remembered with their reason in words. Older ones are only
// counted: a cluster may have as many as it likes.
const maxRefusals = 1000

// refusal is why a record was refused.
type refusal struct {
	key     string
	reason  record.Reason
	message string        // empty once it is too old
	sum     uint64        // of the message, to see whether the next refusal is the same
	place   *list.Element // among the newest; nil once it is too old
}

// refusals are the refused records of a cluster.
type refusals struct {
	count  int
	newest *list.List // of *refusal, newest first
}

func newRefusals() refusals { return refusals{newest: list.New()} }

var refusalSeed = maphash.MakeSeed()

// note takes a refusal of a record that was refused before as was says (nil: it was not), and says whether it is news.
func (r *refusals) note(was *refusal, key string, err error) (now *refusal, fresh bool) {
	message := err.Error()
	now = &refusal{key: key, reason: record.ReasonOf(err), message: message, sum: maphash.String(refusalSeed, message)}
	if was != nil && was.reason == now.reason && was.sum == now.sum {
		return was, false
	}
	r.drop(was)
	r.count++
	now.place = r.newest.PushFront(now)
	if r.newest.Len() > maxRefusals {
		oldest := r.newest.Remove(r.newest.Back()).(*refusal)
		oldest.place, oldest.message = nil, ""
	}
	return now, true
}

// drop forgets a refusal, if it isn't nil.
func (r *refusals) drop(was *refusal) {
	if was == nil {
		return
	}
	r.count--
	if was.place != nil {
		r.newest.Remove(was.place)
	}
}

// show gives at most n refusals, newest first.
func (r *refusals) show(n int) []Rejection {
	var out []Rejection
	for e := r.newest.Front(); e != nil && len(out) < n; e = e.Next() {
		f := e.Value.(*refusal)
		out = append(out, Rejection{Key: f.key, Message: f.message})
	}
	return out
}
