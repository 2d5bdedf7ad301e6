// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

// remote is another cluster: what lies in the store of it, and what of that the agents have.
//
// Both are kept, because they part ways: a record that fails validation leaves its last good value with the agents, a
// frozen cluster changes in the store alone, and a changed MeshCluster makes everything be judged anew.
type remote struct {
	name     string
	state    store.ClusterState
	raw      map[string][]byte // in the store
	good     map[string][]byte // with the agents
	rejected map[string]rejection
	sequence int
	counts   map[string]int32 // of good, by kind
	announce *recordv1.Cluster
	// speak keeps a cluster that floods us with broken records from flooding the log as well; metrics count them all.
	speak rate.Sometimes
}

// rejection is a record that was refused; later ones have a higher sequence.
type rejection struct {
	key      string
	reason   record.Reason
	message  string
	sequence int
}

func newRemote(name string) *remote {
	return &remote{
		name: name, raw: map[string][]byte{}, good: map[string][]byte{},
		rejected: map[string]rejection{}, counts: map[string]int32{},
		speak: rate.Sometimes{First: 10, Interval: time.Second},
	}
}

// store notes what lies in the store now.
func (r *remote) store(ev store.Event) {
	if ev.Value == nil {
		delete(r.raw, ev.Key)
	} else {
		r.raw[ev.Key] = ev.Value
	}
	if record.Kind(ev.Key) == record.KindCluster {
		r.announce = nil
		// Not judged by a claim, for there may be none yet; only whether it speaks for its own prefix.
		if rec, err := record.Unmarshal(ev.Value); err == nil && ev.Value != nil && rec.GetCluster() == r.name && rec.GetClusterInfo().GetName() == r.name {
			r.announce = rec.GetClusterInfo()
		}
	}
}

// judge decides about one key and gives the change for the agents, nil if there is none. fresh is a refusal that was
// not known before.
func (r *remote) judge(key string, claim record.Claim, keys *nodeKeys) (change *relayv1.Change, fresh *rejection) {
	data, stored := r.raw[key]
	if !stored {
		delete(r.rejected, key)
		return r.withdraw(key, keys), nil
	}
	rec, err := record.Unmarshal(data)
	if err == nil {
		err = record.Validate(key, rec, claim)
	}
	if err == nil {
		err = keys.take(key, rec)
	}
	if err != nil {
		return nil, r.reject(key, err)
	}
	delete(r.rejected, key)
	if bytes.Equal(r.good[key], data) {
		return nil, nil
	}
	if _, had := r.good[key]; !had {
		r.counts[record.Kind(key)]++
	}
	r.good[key] = data
	return &relayv1.Change{Key: key, Record: rec}, nil
}

// withdraw takes a record from the agents.
func (r *remote) withdraw(key string, keys *nodeKeys) *relayv1.Change {
	if _, had := r.good[key]; !had {
		return nil
	}
	delete(r.good, key)
	r.counts[record.Kind(key)]--
	keys.release(key)
	return &relayv1.Change{Key: key}
}

func (r *remote) reject(key string, err error) *rejection {
	was, known := r.rejected[key]
	now := rejection{key: key, reason: record.ReasonOf(err), message: err.Error()}
	if known && was.reason == now.reason && was.message == now.message {
		return nil
	}
	r.sequence++
	now.sequence = r.sequence
	r.rejected[key] = now
	return &now
}

// judgeAll brings the agents' view in line with a claim, new or changed. What the claim no longer allows is withdrawn
// even if it was good before.
func (r *remote) judgeAll(claim record.Claim, keys *nodeKeys) (changes []*relayv1.Change, fresh []*rejection) {
	for _, key := range r.sortedKeys() {
		change, refused := r.judge(key, claim, keys)
		if refused != nil {
			fresh = append(fresh, refused)
		}
		if change != nil {
			changes = append(changes, change)
			continue
		}
		if _, refused := r.rejected[key]; !refused {
			continue
		}
		if good, ok := r.good[key]; ok && !stillValid(key, good, claim) {
			changes = append(changes, r.withdraw(key, keys))
		}
	}
	return changes, fresh
}

// retryDuplicates judges again what was refused because another node had its key: that one may be gone.
func (r *remote) retryDuplicates(claim record.Claim, keys *nodeKeys) (changes []*relayv1.Change) {
	for key, rej := range r.rejected {
		if rej.reason != record.ReasonDuplicate {
			continue
		}
		if change, _ := r.judge(key, claim, keys); change != nil {
			changes = append(changes, change)
		}
	}
	return changes
}

func stillValid(key string, data []byte, claim record.Claim) bool {
	rec, err := record.Unmarshal(data)
	return err == nil && record.Validate(key, rec, claim) == nil
}

// sortedKeys lists every key known, identities before endpoints and so on.
func (r *remote) sortedKeys() []string {
	set := map[string]bool{}
	for k := range r.raw {
		set[k] = true
	}
	for k := range r.good {
		set[k] = true
	}
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	kinds := record.Kinds()
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, record.Kind(a)), slices.Index(kinds, record.Kind(b))), cmp.Compare(a, b))
	})
	return keys
}

// newestRejections gives at most n, newest first.
func (r *remote) newestRejections(n int) []Rejection {
	out := make([]Rejection, 0, len(r.rejected))
	for key, rej := range r.rejected {
		out = append(out, Rejection{Key: key, Message: rej.message, sequence: rej.sequence})
	}
	slices.SortFunc(out, func(a, b Rejection) int { return cmp.Compare(b.sequence, a.sequence) })
	return out[:min(n, len(out))]
}
