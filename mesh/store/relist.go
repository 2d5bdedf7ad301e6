// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A cluster that was doubted is listed alone, beside what the watch brings of the others. However it writes, it takes at most a
// tenth of a connection's time and is listed once a second. One that can't be listed is tried ever less, down to once a minute.
const (
	listShare = 10
	minPause  = time.Second
	maxPause  = time.Minute // of one that can't be listed

	// parallelLists is how many clusters are listed at once. The others wait, and buffer nothing meanwhile.
	parallelLists = 4
	// maxBuffer is how many bytes of events may come of a cluster while it is listed.
	maxBuffer = 16 << 20
)

// relist is where a cluster's own list is.
type relist struct {
	wanted  bool // when a list may start, which is
	after   time.Time
	pause   time.Duration // before that, of one that can't be listed
	running bool
	buffer  []*clientv3.Event // that came while it ran
	bytes   int
}

// keep buffers events until the list is there: it may be older than they are.
func (r *relist) keep(events []*clientv3.Event) {
	for _, ev := range events {
		r.bytes += len(ev.Kv.Key) + len(ev.Kv.Value)
	}
	if r.buffer = append(r.buffer, events...); r.overflowed() {
		r.buffer = nil
	}
}

func (r *relist) overflowed() bool { return r.bytes > maxBuffer }

// ended notes when the next list may start, after one that took so long.
func (r *relist) ended(now time.Time, took time.Duration, failed bool) {
	pause := max(minPause, listShare*took)
	if failed {
		pause = min(max(2*r.pause, pause), maxPause)
		r.pause = pause
	} else {
		r.pause = 0
	}
	r.running, r.buffer, r.bytes = false, nil, 0
	r.after = now.Add(pause)
}

// lister lists clusters in the background, for one session.
type lister struct {
	ctx     context.Context
	list    func(prefix string, each func(kv)) (int64, error)
	results chan result
	running int         // lists whose result was not taken yet
	timer   *time.Timer // fires when the first pause of a wanted cluster is over
	lists   sync.WaitGroup
}

// result is a cluster's list, or why there is none.
type result struct {
	cluster  string
	view     *clusterView // that asked for it
	listing  *listing
	revision int64
	err      error
	took     time.Duration
}

func newLister(ctx context.Context, s *Store, list func(context.Context, *Store, string, func(kv)) (int64, error)) *lister {
	l := &lister{
		ctx: ctx, results: make(chan result), timer: time.NewTimer(0),
		list: func(prefix string, each func(kv)) (int64, error) { return list(ctx, s, prefix, each) },
	}
	l.timer.Stop()
	return l
}

func (l *lister) start(cluster string, v *clusterView) {
	l.running++
	l.lists.Go(func() {
		out, begun := result{cluster: cluster, view: v, listing: &listing{}}, time.Now()
		out.revision, out.err = l.list(prefixOf(cluster), func(found kv) {
			if _, rest, ok := split(found.key); ok {
				out.listing.add(cluster, rest, found)
			}
		})
		out.took = time.Since(begun)
		select {
		case l.results <- out:
		case <-l.ctx.Done():
		}
	})
}

// stopLists ends the session's lists. The watch of the next session may begin after what was buffered: the clusters are listed
// anew.
func (w *Watcher) stopLists(cancel func()) {
	cancel()
	w.lister.lists.Wait()
	w.lister.timer.Stop()
	for _, v := range w.clusters {
		if v.relist.running {
			v.relist.running, v.relist.wanted, v.relist.buffer, v.relist.bytes = false, true, nil, 0
		}
	}
}

// wantList has a cluster listed, now or when it may be.
func (w *Watcher) wantList(v *clusterView) {
	if v.relist.wanted || v.relist.running {
		return
	}
	v.relist.wanted = true
	w.startLists()
}

// startLists starts as many of the wanted lists as may run at once, those that may run for the longest time first, and sets the
// timer for the next one that pauses.
func (w *Watcher) startLists() {
	var wanted []string
	for cluster, v := range w.clusters {
		if v.relist.wanted {
			wanted = append(wanted, cluster)
		}
	}
	slices.SortFunc(wanted, func(a, b string) int {
		return cmp.Or(w.clusters[a].relist.after.Compare(w.clusters[b].relist.after), cmp.Compare(a, b))
	})
	now := time.Now()
	for _, cluster := range wanted {
		if w.lister.running == parallelLists {
			return // the next result starts more
		}
		v := w.clusters[cluster]
		if wait := v.relist.after.Sub(now); wait > 0 {
			w.lister.timer.Reset(wait)
			return
		}
		v.relist.wanted, v.relist.running = false, true
		w.lister.start(cluster, v)
	}
}

// takeResult takes a cluster's own list. What can't be listed is that cluster's alone to suffer, unless the store answers nothing
// at all.
func (w *Watcher) takeResult(ctx context.Context, s *Store, f result) error {
	w.lister.running--
	if f.err != nil && w.sameStore(ctx, s) != nil {
		return f.err
	}
	if v := f.view; w.clusters[f.cluster] == v { // else it was forgotten meanwhile
		buffer, overflowed := v.relist.buffer, v.relist.overflowed()
		v.relist.ended(time.Now(), f.took, f.err != nil)
		switch {
		case f.err != nil:
			w.suspect(f.cluster, v, fmt.Sprintf("its records can't be listed, trying again with a later heartbeat: %v", f.err))
		case overflowed:
			w.suspect(f.cluster, v, "its records change faster than they can be listed, trying again with a later heartbeat")
		default:
			w.takeList(f.cluster, f.listing, f.revision)
		}
		w.takeEvents(f.cluster, slices.Clip(buffer))
	}
	w.startLists()
	return nil
}
