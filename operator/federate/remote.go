// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

// remote is another cluster: what lies in the store of it, and what of that was taken.
//
// Both are kept, because they part ways: a record that fails validation leaves its last good value with the agents, a
// frozen cluster changes in the store alone, and a changed MeshCluster makes records be judged anew.
type remote struct {
	name     string
	state    store.ClusterState
	kinds    map[string]map[string]*held // kind → key → record
	counts   map[string]int32            // of good records, by kind
	refused  refusals
	waiting  map[string]string // nodes refused because another one has their key → that key
	announce *recordv1.Cluster
	shared   *shared

	// backlog lists the kinds that are still to be judged by a new claim, the first of them under way.
	backlog []string
	// complete: the good records are all there are, but for refused ones and kinds in the backlog. A cluster that is frozen
	// stays as complete as it was.
	complete bool
	// logged keeps a cluster that floods us with broken records from flooding the log as well; metrics count them all.
	logged rate.Sometimes
	beats  rate.Sometimes // and one that comes and goes
}

// held is one record. raw and good are the same bytes most of the time.
type held struct {
	raw     []byte // in the store; nil: not there
	good    []byte // taken; nil: never, or withdrawn
	refused *refusal
	size    int // in the store, if that is more than is kept
}

// shared is what is known of the nodes of all clusters.
type shared struct {
	keys      *nodeKeys
	addresses *nodeAddresses
}

func newRemote(name string, s *shared) *remote {
	return &remote{
		name: name, kinds: map[string]map[string]*held{}, counts: map[string]int32{}, refused: newRefusals(),
		waiting: map[string]string{}, shared: s, logged: rate.Sometimes{First: 10, Interval: time.Second},
		beats: rate.Sometimes{First: 2, Interval: 10 * time.Second},
	}
}

// store notes what lies in the store now.
func (r *remote) store(ev store.Event) {
	kind := record.Kind(ev.Key)
	h := r.kinds[kind][ev.Key]
	if h == nil {
		h = &held{}
		if r.kinds[kind] == nil {
			r.kinds[kind] = map[string]*held{}
		}
		r.kinds[kind][ev.Key] = h
	}
	h.raw, h.size = ev.Value, 0
	if len(ev.Value) > record.MaxSize {
		// Refused whatever is in it, and nothing to keep in memory.
		h.raw, h.size = []byte{}, len(ev.Value)
	}
	switch kind {
	case record.KindCluster:
		r.announce = r.announced(h)
	case record.KindNode:
		r.index(ev.Key, h)
	}
	if h.raw == nil && h.good == nil {
		r.remove(ev.Key, h)
	}
}

// index notes where a node is to be found by its addresses: by those in the store, and by those that agents have, which may
// be others while what lies in the store is refused.
func (r *remote) index(key string, h *held) {
	addresses := decode(h).GetNode().GetAddresses()
	if len(addresses) > maxIndexed {
		addresses = nil
	}
	if h.good != nil && !bytes.Equal(h.good, h.raw) {
		good := held{raw: h.good}
		addresses = slices.Concat(addresses, decode(&good).GetNode().GetAddresses())
	}
	r.shared.addresses.set(key, addresses)
}

// remove forgets a record that neither the store nor an agent has.
func (r *remote) remove(key string, h *held) {
	r.accepted(key, h)
	r.shared.addresses.set(key, nil)
	delete(r.kinds[record.Kind(key)], key)
}

// announced is what a cluster says of itself. It isn't judged by a claim, for there may be none yet; only whether it is
// of the prefix that it lies in.
func (r *remote) announced(h *held) *recordv1.Cluster {
	rec := decode(h)
	if rec.GetCluster() != r.name || rec.GetClusterInfo().GetName() != r.name {
		return nil
	}
	return rec.GetClusterInfo()
}

// decode gives a record as it lies in the store, nil if there is none or it is none.
func decode(h *held) *recordv1.Record {
	if h.raw == nil || h.size > 0 {
		return nil
	}
	rec, err := record.Unmarshal(h.raw)
	if err != nil {
		return nil
	}
	return rec
}

// judge decides about one key and gives the change for the agents, nil if there is none. fresh is a refusal that was not
// known before.
func (r *remote) judge(key string, claim *record.Claim) (change *relayv1.Change, fresh *refusal) {
	h := r.kinds[record.Kind(key)][key]
	if h == nil {
		return nil, nil
	}
	if h.raw == nil {
		change := r.withdraw(key, h)
		r.remove(key, h)
		return change, nil
	}
	rec, err := h.validate(key, claim)
	if err == nil {
		err = r.shared.keys.take(key, rec)
	}
	if err != nil {
		return nil, r.refuse(key, h, err)
	}
	r.accepted(key, h)
	if h.good != nil && bytes.Equal(h.good, h.raw) {
		return nil, nil
	}
	if h.good == nil {
		r.counts[record.Kind(key)]++
	}
	h.good = h.raw
	return r.forAgents(key, rec), nil
}

func (h *held) validate(key string, claim *record.Claim) (*recordv1.Record, error) {
	if h.size > 0 {
		return nil, &record.Error{Reason: record.ReasonTooLarge, Detail: fmt.Sprintf("record has %d bytes, more than %d", h.size, record.MaxSize)}
	}
	rec, err := record.Unmarshal(h.raw)
	if err != nil {
		return nil, err
	}
	return rec, record.Validate(key, rec, *claim)
}

// forAgents is a change of a good record as agents get it. They take no policies of other clusters, so they are sent
// none: those are only counted.
func (r *remote) forAgents(key string, rec *recordv1.Record) *relayv1.Change {
	if record.Kind(key) == record.KindPolicy {
		return nil
	}
	return &relayv1.Change{Key: key, Record: rec}
}

// rejudge is judge after the claim changed: what the claim no longer allows is withdrawn even if it was good before.
func (r *remote) rejudge(key string, claim *record.Claim) (change *relayv1.Change, fresh *refusal) {
	h := r.kinds[record.Kind(key)][key]
	change, fresh = r.judge(key, claim)
	if h == nil || h.refused == nil || h.good == nil {
		return change, fresh
	}
	good := held{raw: h.good}
	if _, err := good.validate(key, claim); err != nil {
		return r.withdraw(key, h), fresh
	}
	return change, fresh
}

// withdraw takes a record from the agents.
func (r *remote) withdraw(key string, h *held) *relayv1.Change {
	if h.good == nil {
		return nil
	}
	h.good = nil
	r.counts[record.Kind(key)]--
	r.shared.keys.release(key)
	return r.forAgents(key, nil)
}

func (r *remote) refuse(key string, h *held, err error) (fresh *refusal) {
	now, another := r.refused.note(h.refused, key, err)
	h.refused = now
	if now.reason == record.ReasonDuplicate {
		r.waiting[key] = decode(h).GetNode().GetWireguardPublicKey()
	} else {
		delete(r.waiting, key)
	}
	if !another {
		return nil
	}
	return now
}

func (r *remote) accepted(key string, h *held) {
	r.refused.drop(h.refused)
	h.refused = nil
	delete(r.waiting, key)
}

// free gives the nodes that were refused because another node had their key, where that one is gone.
func (r *remote) free() (keys []string) {
	for key, public := range r.waiting {
		if holder, held := r.shared.keys.holder[public]; !held || holder == key {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// later says whether a kind's turn in the backlog is still to come, so that its records need not be judged now.
func (r *remote) later(kind string) bool {
	return len(r.backlog) > 1 && slices.Contains(r.backlog[1:], kind)
}
