// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A cluster that was doubted is listed alone, beside what the watch brings of the others. However it writes, it takes at most a
// tenth of a connection's time and is listed once a second; one that can't be listed is tried ever less.
const (
	listShare = 10
	minPause  = time.Second
	maxPause  = time.Minute // of one that can't be listed

	parallelLists = 4
	// maxHeld is how many bytes of events may come of a cluster while it is listed.
	maxHeld = 16 << 20
)

// relist is where a cluster's own list is.
type relist struct {
	wanted   bool // as soon as it may be, which is
	after    time.Time
	pause    time.Duration // before that, of one that can't be listed
	underWay bool
	held     []*clientv3.Event // that came meanwhile
	bytes    int
}

// hold keeps events for when the list is there: it may be older than they are.
func (r *relist) hold(events []*clientv3.Event) {
	for _, ev := range events {
		r.bytes += len(ev.Kv.Key) + len(ev.Kv.Value)
	}
	if r.held = append(r.held, events...); r.tooMuch() {
		r.held = nil
	}
}

func (r *relist) tooMuch() bool { return r.bytes > maxHeld }

// lister lists clusters in the background, for one session.
type lister struct {
	ctx   context.Context
	list  func(prefix string, each func(kv)) (int64, error)
	found chan found
	slots chan struct{}
	lists sync.WaitGroup
}

// found is a cluster's list, or why there is none.
type found struct {
	cluster  string
	view     *clusterView // that asked for it
	listing  *listing
	revision int64
	err      error
	took     time.Duration
}

func newLister(ctx context.Context, s *Store, list func(context.Context, *Store, string, func(kv)) (int64, error)) *lister {
	return &lister{
		ctx: ctx, found: make(chan found), slots: make(chan struct{}, parallelLists),
		list: func(prefix string, each func(kv)) (int64, error) { return list(ctx, s, prefix, each) },
	}
}

func (l *lister) start(cluster string, v *clusterView) {
	l.lists.Go(func() {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		out, begun := found{cluster: cluster, view: v, listing: &listing{}}, time.Now()
		out.revision, out.err = l.list(prefixOf(cluster), func(f kv) {
			if _, rest, ok := split(f.key); ok {
				out.listing.add(cluster, rest, f)
			}
		})
		out.took = time.Since(begun)
		<-l.slots
		select {
		case l.found <- out:
		case <-l.ctx.Done():
		}
	})
}

// stopLists ends the session's lists. What was held back for them is not known to be whole: the clusters are listed anew.
func (w *Watcher) stopLists(cancel func()) {
	cancel()
	w.lister.lists.Wait()
	for _, v := range w.clusters {
		if v.relist.underWay {
			v.relist.underWay, v.relist.wanted, v.relist.held, v.relist.bytes = false, true, nil, 0
		}
	}
}

// wantList has a cluster listed, now or when it may be.
func (w *Watcher) wantList(cluster string, v *clusterView) {
	if v.relist.wanted || v.relist.underWay {
		return
	}
	if wait := time.Until(v.relist.after); wait > 0 {
		v.relist.wanted = true
		time.AfterFunc(wait, w.wake.Raise)
		return
	}
	w.startList(cluster, v)
}

func (w *Watcher) startList(cluster string, v *clusterView) {
	v.relist.wanted, v.relist.underWay, v.relist.bytes = false, true, 0
	w.lister.start(cluster, v)
}

// resumeLists goes on with what an earlier session wanted.
func (w *Watcher) resumeLists() {
	for cluster, v := range w.clusters {
		if v.relist.wanted {
			v.relist.wanted = false
			w.wantList(cluster, v)
		}
	}
}

// startLists starts those whose time has come.
func (w *Watcher) startLists() {
	now := time.Now()
	for cluster, v := range w.clusters {
		if v.relist.wanted && !v.relist.underWay && !now.Before(v.relist.after) {
			w.startList(cluster, v)
		}
	}
}

// takeListOf takes a cluster's own list. What can't be listed is that cluster's alone to suffer, unless the store answers nothing
// at all.
func (w *Watcher) takeListOf(ctx context.Context, s *Store, f found) error {
	if f.err != nil && w.sameStore(ctx, s) != nil {
		return f.err
	}
	v := f.view
	if w.clusters[f.cluster] != v {
		return nil // forgotten meanwhile
	}
	r := &v.relist
	held, tooMuch := r.held, r.tooMuch()
	r.underWay, r.held, r.bytes = false, nil, 0
	switch {
	case f.err != nil:
		r.pause = min(max(2*r.pause, minPause, listShare*f.took), maxPause)
		w.suspect(f.cluster, v, fmt.Sprintf("its records can't be listed, trying again with a later heartbeat: %v", f.err))
	case tooMuch:
		r.pause = max(minPause, listShare*f.took)
		w.suspect(f.cluster, v, "its records change faster than they can be listed, trying again with a later heartbeat")
	default:
		r.pause = 0
	}
	r.after = time.Now().Add(max(r.pause, minPause, listShare*f.took))
	if f.err == nil && !tooMuch {
		w.takeList(f.cluster, f.listing, f.revision)
	}
	w.takeEvents(f.cluster, slices.Clip(held))
	return nil
}
