// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// unreadableZone marks a record that no agent understands.
const unreadableZone = "unreadable"

// operator is a relay process: it knows some clusters, and what changed since it started.
type operator struct {
	epoch   string
	loaded  map[string]bool
	history []*relayv1.Change
}

// stream is an operator and an agent with a disk, driven by hand.
type stream struct {
	t     *rapid.T
	file  string
	truth map[string]string // key → zone, of every cluster
	op    operator
	ops   int

	i       *Intake
	sending []*relayv1.Batch  // on their way
	sent    int               // of the operator's history; -1: not connected
	saved   map[string]string // what the disk should give
}

func newStream(t *rapid.T, dir string) *stream {
	s := &stream{t: t, file: filepath.Join(dir, "snapshot"), truth: map[string]string{}, sent: -1, saved: map[string]string{}}
	s.op = operator{epoch: "0", loaded: map[string]bool{"east": true, "west": true}}
	s.start()
	return s
}

func (s *stream) start() {
	tables := table.New()
	s.i = New(Config{Tables: tables, Node: "east-1", Snapshot: s.file, Version: "test", Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
	s.must(s.i.Restore())
	s.sent, s.sending = -1, nil
	if got := s.held(); !maps.Equal(got, s.saved) {
		s.t.Fatalf("restored %v, saved was %v", got, s.saved)
	}
}

func (s *stream) stop() {
	s.must(s.i.journal.Close())
}

func (s *stream) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) held() map[string]string {
	out := map[string]string{}
	for key, n := range s.i.cfg.Tables.Nodes.All() {
		out[key] = n.Zone
	}
	return out
}

// want is what an agent that is up to date holds.
func (s *stream) want() map[string]string {
	out := maps.Clone(s.truth)
	maps.DeleteFunc(out, func(_, zone string) bool { return zone == unreadableZone })
	return out
}

// known is that, of the clusters that the operator knows.
func (s *stream) known() map[string]string {
	out := s.want()
	maps.DeleteFunc(out, func(key, _ string) bool { return !s.op.loaded[record.ClusterOf(key)] })
	return out
}

func zoned(key, zone string) *relayv1.Change {
	cluster := record.ClusterOf(key)
	c := node(cluster, key[len(cluster)+len("/nodes/"):])
	c.Record.GetNode().Zone = zone
	if zone == unreadableZone {
		c.Record.GetNode().Addresses = []string{"?"}
	}
	return c
}

func (s *stream) change() {
	cluster := rapid.SampledFrom([]string{"east", "west"}).Draw(s.t, "cluster")
	key := record.NodeKey(cluster, fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(s.t, "node")))
	zone := rapid.SampledFrom([]string{"a", "b", unreadableZone, ""}).Draw(s.t, "zone")
	c := &relayv1.Change{Key: key}
	if zone != "" {
		c = zoned(key, zone)
		s.truth[key] = zone
	} else {
		delete(s.truth, key)
	}
	if s.op.loaded[cluster] {
		s.op.history = append(s.op.history, c)
	}
}

func (s *stream) at() *relayv1.ResumePoint {
	return &relayv1.ResumePoint{Epoch: s.op.epoch, Revision: uint64(len(s.op.history))}
}

func (s *stream) clusters() []*relayv1.ClusterState {
	var out []*relayv1.ClusterState
	for _, name := range []string{"east", "west"} {
		c := &relayv1.ClusterState{Name: name, Local: name == "east", Synced: s.op.loaded[name]}
		if c.Synced && rapid.Bool().Draw(s.t, "by kind") {
			c.SyncedKinds = record.Kinds()
		}
		out = append(out, c)
	}
	return out
}

// connect begins a snapshot, in small batches, or goes on where the agent is.
func (s *stream) connect() {
	if s.sent >= 0 {
		return
	}
	s.sent = len(s.op.history)
	if p := s.i.Resume(); p.GetEpoch() == s.op.epoch {
		rest := s.op.history[p.GetRevision():]
		s.sending = []*relayv1.Batch{{At: s.at(), Changes: rest, Clusters: s.clusters()}}
		if len(rest) > 1 {
			first := &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: s.op.epoch, Revision: p.GetRevision() + 1}, Changes: rest[:1]}
			s.sending[0].Changes = rest[1:]
			s.sending = slices.Insert(s.sending, 0, first)
		}
		return
	}
	s.sending = []*relayv1.Batch{{SnapshotStart: true}}
	for key, zone := range s.truth {
		if s.op.loaded[record.ClusterOf(key)] {
			s.sending = append(s.sending, &relayv1.Batch{Changes: []*relayv1.Change{zoned(key, zone)}})
		}
	}
	s.sending = append(s.sending, &relayv1.Batch{SnapshotEnd: true, At: s.at(), Clusters: s.clusters()})
}

func (s *stream) receive() {
	if s.sent < 0 {
		return
	}
	if len(s.sending) == 0 {
		s.sending = []*relayv1.Batch{{At: s.at(), Changes: s.op.history[s.sent:], Clusters: s.clusters()}}
		s.sent = len(s.op.history)
	}
	n := rapid.IntRange(1, len(s.sending)).Draw(s.t, "batches")
	for _, b := range s.sending[:n] {
		s.must(s.i.Handle(b))
	}
	s.sending = s.sending[n:]
}

func (s *stream) save() {
	if !s.i.flush() {
		s.t.Fatal(s.i.Err())
	}
	if s.i.state.Whole() {
		s.saved = s.held()
	}
}

func (s *stream) restartOperator() {
	s.ops++
	s.op = operator{epoch: fmt.Sprint(s.ops), loaded: map[string]bool{}}
	s.sent, s.sending = -1, nil
}

// load lets the operator learn of a cluster.
func (s *stream) load(cluster string) {
	if s.op.loaded[cluster] {
		return
	}
	for key, zone := range s.truth {
		if record.ClusterOf(key) == cluster {
			s.op.history = append(s.op.history, zoned(key, zone))
		}
	}
	s.op.loaded[cluster] = true
}

// Whatever happens in whatever order, an agent ends up with what the operator knows, loses nothing that the operator doesn't
// know to be gone, and starts from its disk with a state that it once had.
func TestTablesEqualTheStreamAfterAnything(t *testing.T) {
	base := t.TempDir()
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a small file system (run as root): %v", err)
	}
	defer func() {
		if err := unix.Unmount(base, 0); err != nil {
			t.Error(err)
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "stream")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s := newStream(rt, dir)
		defer func() { s.stop() }()
		s.truth["west/nodes/keep"] = "a"
		s.op.history = append(s.op.history, zoned("west/nodes/keep", "a"))
		s.connect()
		for len(s.sending) > 0 {
			s.receive()
		}
		s.save()
		rt.Repeat(map[string]func(*rapid.T){
			"change":           func(*rapid.T) { s.change() },
			"connect":          func(*rapid.T) { s.connect() },
			"disconnect":       func(*rapid.T) { s.sent, s.sending = -1, nil },
			"receive":          func(*rapid.T) { s.receive() },
			"save":             func(*rapid.T) { s.save() },
			"restart agent":    func(*rapid.T) { s.stop(); s.start() },
			"restart operator": func(*rapid.T) { s.restartOperator() },
			"load":             func(t *rapid.T) { s.load(rapid.SampledFrom([]string{"east", "west"}).Draw(t, "cluster")) },
			"": func(rt *rapid.T) {
				if !s.i.records.Has("west/nodes/keep") {
					rt.Fatal("a record that was never gone is gone")
				}
				if c := s.i.Completeness(); s.sent < 0 || len(s.sending) > 0 || s.sent < len(s.op.history) {
					return
				} else if known := s.known(); c.All() && !maps.Equal(s.held(), known) {
					rt.Fatalf("complete with %v, the operator knows %v", s.held(), known)
				}
			},
		})
		s.load("east")
		s.load("west")
		s.sent, s.sending = -1, nil
		s.connect()
		for len(s.sending) > 0 {
			s.receive()
		}
		if got := s.held(); !maps.Equal(got, s.want()) {
			rt.Fatalf("agent holds %v, the operator knows %v", got, s.want())
		}
		if !s.i.Completeness().All() || !s.i.Usable() || s.i.Cluster() != "east" {
			rt.Fatalf("up to date, and not complete: usable %t, cluster %q", s.i.Usable(), s.i.Cluster())
		}
		s.save()
		s.stop()
		s.start()
		if got := s.held(); !maps.Equal(got, s.want()) || !maps.Equal(s.saved, got) {
			rt.Fatalf("from the disk %v, the operator knows %v", got, s.want())
		}
	})
}
