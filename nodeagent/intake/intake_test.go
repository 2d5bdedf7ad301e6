// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func node(cluster, name string) *relayv1.Change {
	return &relayv1.Change{Key: cluster + "/nodes/" + name, Record: &recordv1.Record{
		Cluster: cluster, Payload: &recordv1.Record_Node{Node: &recordv1.Node{Name: name}},
	}}
}

func whole(revision uint64, changes ...*relayv1.Change) *relayv1.Batch {
	return &relayv1.Batch{
		At: &relayv1.ResumePoint{Epoch: "e", Revision: revision}, SnapshotStart: true, SnapshotEnd: true, Changes: changes,
		Clusters: []*relayv1.ClusterState{{Name: "east", Synced: true, Local: true}, {Name: "west", Synced: true}},
	}
}

func newIntake(t *testing.T, file string) *Intake {
	t.Helper()
	tables, err := table.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(Config{Tables: tables, Node: "east-1", Snapshot: file, Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
}

func handle(t *testing.T, i *Intake, b *relayv1.Batch) {
	t.Helper()
	if err := i.Handle(b); err != nil {
		t.Fatal(err)
	}
}

func TestANodeStartsFromItsDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "snapshot")
	first := newIntake(t, file)
	if first.Usable() || first.Complete() {
		t.Error("an empty intake is usable")
	}
	var many []*relayv1.Change
	for n := range 2*recordsInBatch + 1 {
		many = append(many, node("west", fmt.Sprintf("west-%d", n)))
	}
	handle(t, first, whole(9, append(many, node("east", "east-1"))...))
	first.saveOnce()
	if err := first.Err(); err != nil {
		t.Fatal(err)
	}

	second := newIntake(t, file)
	if err := second.Restore(); err != nil {
		t.Fatal(err)
	}
	if second.Usable() || second.Complete() || second.Cluster() != "east" {
		t.Errorf("before the relay spoke: usable %t, complete %t, cluster %q", second.Usable(), second.Complete(), second.Cluster())
	}
	second.StopWaiting()
	if !second.Usable() || second.Complete() {
		t.Errorf("without the relay: usable %t, complete %t; the disk may be behind the kernel", second.Usable(), second.Complete())
	}
	if p := second.Resume(); p.GetEpoch() != "e" || p.GetRevision() != 9 {
		t.Errorf("resume = %v", p)
	}
	tables := second.cfg.Tables
	if got, want := tables.Nodes.Len(tables.DB.ReadTxn()), first.state.Len(); got != want {
		t.Errorf("%d nodes restored, want %d", got, want)
	}
	handle(t, second, &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: "e", Revision: 10}, Changes: []*relayv1.Change{node("west", "new")}})
	if !second.Complete() {
		t.Error("incomplete though the relay resumed")
	}
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, node("east", "east-1")))
	i.saveOnce()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"cut off":         good[:len(good)-1],
		"cut off early":   good[:10],
		"empty":           nil,
		"a flipped bit":   append(append(bytes.Clone(good[:30]), good[30]^1), good[31:]...),
		"another version": append([]byte("fairlead snapshot 9\n"), good[len(magic):]...),
		"something else":  bytes.Repeat([]byte("x"), 200),
	} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		j := newIntake(t, file)
		if err := j.Restore(); !errors.Is(err, errDamaged) && !errors.Is(err, errForeign) {
			t.Errorf("%s: error = %v", name, err)
		}
		if j.Usable() {
			t.Errorf("%s: usable", name)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := newIntake(t, file).Restore(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

// On a full disk the last snapshot stays, the problem is told, and the mesh goes on.
func TestAFullDiskKeepsTheLastSnapshot(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small file system (run as root): %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(dir, "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, node("east", "east-1")))
	i.saveOnce()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var many []*relayv1.Change
	for n := range 5000 {
		many = append(many, node("east", fmt.Sprintf("east-%d", n)))
	}
	handle(t, i, whole(2, many...))
	i.saveOnce()
	if !errors.Is(i.Err(), unix.ENOSPC) {
		t.Errorf("error = %v, want no space left", i.Err())
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the last snapshot did not stay: %d bytes, %v", len(after), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	handle(t, i, whole(3, node("east", "east-1")))
	i.saveOnce()
	if err := i.Err(); err != nil {
		t.Errorf("after there is space again: %v", err)
	}
}

func TestOnlyAWholeStateIsComplete(t *testing.T) {
	i := newIntake(t, "")
	b := whole(1, node("east", "east-1"))
	b.SnapshotEnd, b.At = false, nil
	handle(t, i, b)
	if i.Usable() || i.Complete() {
		t.Error("half a snapshot is usable")
	}
	end := &relayv1.Batch{SnapshotEnd: true, At: &relayv1.ResumePoint{Epoch: "e", Revision: 1}, Clusters: []*relayv1.ClusterState{
		{Name: "east", Synced: true, Local: true}, {Name: "west"},
	}}
	handle(t, i, end)
	if !i.Usable() || i.Complete() {
		t.Errorf("usable %t, complete %t while the operator doesn't know west", i.Usable(), i.Complete())
	}
	handle(t, i, &relayv1.Batch{Clusters: []*relayv1.ClusterState{{Name: "east", Synced: true, Local: true}, {Name: "west", Synced: true}}})
	if !i.Complete() {
		t.Error("not complete when every cluster is synced")
	}
}

func TestTheClusterIsToldOrUnmistakable(t *testing.T) {
	i := newIntake(t, "")
	b := whole(1, node("east", "east-1"), node("west", "east-1"))
	b.Clusters = nil
	handle(t, i, b)
	if c := i.Cluster(); c != "" {
		t.Errorf("cluster = %q though two have a node of this name", c)
	}
	j := newIntake(t, "")
	b = whole(1, node("east", "east-1"), node("west", "west-1"))
	b.Clusters = nil
	handle(t, j, b)
	if c := j.Cluster(); c != "east" {
		t.Errorf("cluster = %q, want east", c)
	}
}

func TestTheLastStateIsSavedOnTheWayOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- i.Save(ctx) }()
	handle(t, i, whole(1, node("east", "east-1")))
	for i.dirtyNow() {
		time.Sleep(time.Millisecond)
	}
	handle(t, i, whole(2, node("east", "east-1"), node("east", "east-2")))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	j := newIntake(t, file)
	if err := j.Restore(); err != nil {
		t.Fatal(err)
	}
	if p := j.Position(); p.GetRevision() != 2 {
		t.Errorf("saved = %v, want the last state", p)
	}
}

func (i *Intake) dirtyNow() bool { return len(i.dirty) > 0 }

// Whatever lies on the disk: an error, or a state whose records lie under their own keys.
func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if err := encode(&b, snapshot{at: &relayv1.ResumePoint{Epoch: "e"}, records: map[string]*recordv1.Record{
		"east/nodes/n": node("east", "n").Record,
	}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes()[len(magic):])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		for key, rec := range s.records {
			if got, err := record.Key(rec); err != nil || got != key {
				t.Errorf("%s holds %s (%v)", key, got, err)
			}
		}
	})
}
