// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// This file decides what may be believed of the store. Two things take records away: a delete event that is a link of
// the publisher's chain (it moved the fence in the same transaction), and a list taken while the canary was there and
// the heartbeat proves that the publisher had seen to it that nothing was lost. Anything else, a wiped store, a prefix
// deleted by hand, an old backup put back, only makes the cluster stale until its publisher has repaired it.

// listing is one cluster's keys at one revision.
type listing struct {
	records   []kv // key without Root
	canary    bool
	fence     int64
	heartbeat time.Time
}

func (l *listing) add(cluster, rest string, found kv) {
	switch rest {
	case keySynced:
		l.canary = true
	case keyLeader:
		l.fence = found.modRevision
	case keyHeartbeat:
		l.heartbeat = parseHeartbeat(found.value)
	default:
		found.key = cluster + "/" + rest
		if record.Kind(found.key) != "" {
			l.records = append(l.records, found)
		}
	}
}

func parseHeartbeat(value []byte) time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(value))
	if err != nil {
		return time.Time{}
	}
	return t
}

// doubt says why a list can't be believed, or "".
func (v *clusterView) doubt(l *listing) string {
	switch {
	case !l.canary && !v.delivered.Synced:
		return "waiting for the cluster's first complete publish"
	case !l.canary:
		return "the store lost the cluster's records; waiting for the cluster to publish them again"
	case !v.delivered.Synced:
		return ""
	case l.heartbeat.Before(v.heartbeat), l.heartbeat.Equal(v.heartbeat) && l.fence < v.fence:
		return "the store is older than what is known of the cluster (restored from a backup?); waiting for the cluster to repair it"
	}
	return ""
}

// takeList delivers the differences between a list and what was delivered, if the list can be believed.
func (w *Watcher) takeList(cluster string, l *listing, revision int64) {
	v := w.view(cluster)
	v.revision = revision
	if why := v.doubt(l); why != "" {
		w.suspect(cluster, v, why)
		return
	}
	w.deliver(cluster, w.differences(cluster, v, l, revision))
	v.following, v.fence, v.relist.wanted = true, l.fence, false
	v.beat(l.heartbeat)
	w.announce(cluster, v, func(s *ClusterState) {
		s.Synced, s.Revision = true, revision
		s.Stale, s.Why = w.silent(v, time.Now())
	})
}

// differences gives what is named before what names it, and removals the other way round: a list comes by key, endpoints
// before their identities.
func (w *Watcher) differences(cluster string, v *clusterView, l *listing, revision int64) []Event {
	ranks := len(record.Kinds())
	ordered := make([][]Event, 2*ranks)
	leftover := maps.Clone(v.known)
	for _, found := range l.records {
		delete(leftover, found.key)
		if w.remember(v, found.key, found.value) {
			place := record.Rank(found.key)
			ordered[place] = append(ordered[place], Event{cluster, found.key, present(found.value), found.modRevision})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(leftover)) {
		delete(v.known, key)
		place := 2*ranks - 1 - record.Rank(key)
		ordered[place] = append(ordered[place], Event{cluster, key, nil, revision})
	}
	return slices.Concat(ordered...)
}

// present keeps an empty value apart from a deletion.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// remember notes a value as delivered and tells whether it is news.
func (w *Watcher) remember(v *clusterView, key string, value []byte) bool {
	sum := maphash.Bytes(w.seed, value)
	if have, ok := v.known[key]; ok && have == sum {
		return false
	}
	v.known[key] = sum
	return true
}

// beat notes a heartbeat and tells whether it grew.
func (v *clusterView) beat(t time.Time) bool {
	if !t.After(v.heartbeat) {
		return false
	}
	first := v.heartbeat.IsZero()
	v.heartbeat, v.seen = t, time.Now()
	if first && t.Before(v.seen) {
		v.seen = t // found, not heard: it may be of a cluster that has been dead for long
	}
	return true
}

// take goes through watched events, cluster by cluster, revision by revision.
func (w *Watcher) take(events []*clientv3.Event) {
	var order []string
	byCluster := map[string][]*clientv3.Event{}
	for _, ev := range events {
		cluster, _, ok := split(string(ev.Kv.Key))
		if !ok {
			continue
		}
		if byCluster[cluster] == nil {
			order = append(order, cluster)
		}
		byCluster[cluster] = append(byCluster[cluster], ev)
	}
	for _, cluster := range order {
		w.takeEvents(cluster, byCluster[cluster])
	}
}

func (w *Watcher) takeEvents(cluster string, events []*clientv3.Event) {
	v := w.view(cluster)
	if v.relist.running {
		v.relist.keep(events)
		return
	}
	var out []Event
	flush := func() { w.deliver(cluster, out); out = nil }
	for len(events) > 0 {
		link := readLink(cluster, events)
		events = events[link.events:]
		if link.revision <= v.revision {
			continue // the list had it
		}
		v.revision = link.revision
		if v.following {
			if why := link.doubt(v); why != "" {
				flush()
				w.suspect(cluster, v, why)
			}
		}
		if !v.following {
			if link.worthListing(v) {
				w.wantList(v)
			}
			if v.relist.running {
				v.relist.keep(events)
				return
			}
			continue
		}
		v.fence = link.revision
		for _, e := range link.records {
			if _, known := v.known[e.Key]; e.Value == nil && known {
				delete(v.known, e.Key)
				out = append(out, e)
			} else if e.Value != nil && w.remember(v, e.Key, e.Value) {
				out = append(out, e)
			}
		}
		if v.beat(link.heartbeat) {
			flush()
			w.announce(cluster, v, func(s *ClusterState) { s.Revision, s.Stale, s.Why = link.revision, false, "" })
		}
	}
	flush()
}

// link is what one transaction did to one cluster.
type link struct {
	revision  int64
	events    int // how many watch events it came as
	records   []Event
	fenced    bool // it moved the fence, on from previous
	previous  int64
	lostKey   string // the fence or the canary, if it was deleted
	canary    bool   // it wrote the canary
	heartbeat time.Time
}

// readLink takes the first revision's events.
func readLink(cluster string, events []*clientv3.Event) link {
	l := link{revision: events[0].Kv.ModRevision}
	for _, ev := range events {
		if ev.Kv.ModRevision != l.revision {
			break
		}
		l.events++
		_, rest, _ := split(string(ev.Kv.Key))
		deleted := ev.Type == clientv3.EventTypeDelete
		switch rest {
		case keyLeader:
			_, l.previous, l.fenced = parseFence(ev.Kv.Value)
			l.fenced = l.fenced && !deleted
		case keyHeartbeat:
			l.heartbeat = parseHeartbeat(ev.Kv.Value)
		case keySynced:
			l.canary = !deleted
		default:
			key := cluster + "/" + rest
			if record.Kind(key) == "" {
				continue
			}
			e := Event{Cluster: cluster, Key: key, ModRevision: l.revision}
			if !deleted {
				e.Value = present(ev.Kv.Value)
			}
			l.records = append(l.records, e)
		}
		if deleted && (rest == keyLeader || rest == keySynced) {
			l.lostKey = rest
		}
	}
	return l
}

// doubt says why a transaction is no link of the publisher's chain, or "".
func (l link) doubt(v *clusterView) string {
	switch {
	case l.lostKey != "":
		return fmt.Sprintf("%s was deleted from the store; waiting for the cluster to publish again", l.lostKey)
	case !l.fenced:
		return "somebody else than the cluster's leader changed its records; waiting for the leader to see to it"
	case l.previous != v.fence:
		return "the store lost some of the cluster's writes; waiting for the cluster to repair it"
	}
	return ""
}

// worthListing tells whether a transaction may have ended the doubt.
func (l link) worthListing(v *clusterView) bool {
	return l.canary || l.heartbeat.After(v.heartbeat)
}

// suspect stops following a cluster and keeps what is known of it.
func (w *Watcher) suspect(cluster string, v *clusterView, why string) {
	if v.following || v.delivered.Why != why {
		v.logged.Do(func() {
			w.log.Warn("records of a cluster can't be believed for now, keeping what is known", "cluster", cluster, "why", why)
		})
	}
	v.following = false
	w.announce(cluster, v, func(s *ClusterState) { s.Stale, s.Why = s.Synced, why })
}

// announce delivers a changed state.
func (w *Watcher) announce(cluster string, v *clusterView, change func(*ClusterState)) {
	next := v.delivered
	change(&next)
	next.Heartbeat = v.heartbeat
	if next != v.delivered {
		v.delivered = next
		w.handler.Cluster(cluster, next)
	}
}

// expire marks clusters stale whose heartbeat stopped.
func (w *Watcher) expire(now time.Time) {
	for _, cluster := range slices.Sorted(maps.Keys(w.clusters)) {
		v := w.clusters[cluster]
		if silent, why := w.silent(v, now); silent && v.delivered.Synced && !v.delivered.Stale {
			w.announce(cluster, v, func(s *ClusterState) { s.Stale, s.Why = true, why })
		}
	}
}

// silent tells whether a cluster's heartbeat stopped, by our own clock.
func (w *Watcher) silent(v *clusterView, now time.Time) (bool, string) {
	if now.Sub(v.seen) < w.staleAfter {
		return false, ""
	}
	return true, fmt.Sprintf("no heartbeat for %s", w.staleAfter)
}
