// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func node(cluster, name string) *relayv1.Change {
	return &relayv1.Change{Key: record.NodeKey(cluster, name), Record: &recordv1.Record{
		Cluster: cluster, Payload: &recordv1.Record_Node{Node: &recordv1.Node{Name: name, Addresses: []string{"192.0.2.1"}}},
	}}
}

func clusterInfo(name string, id uint32, cidr string) *relayv1.Change {
	return &relayv1.Change{Key: name + "/cluster", Record: &recordv1.Record{
		Cluster: name, Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
			Name: name, Id: id, MeshId: "demo", PodCidrs: []string{cidr},
		}},
	}}
}

func at(revision uint64) *relayv1.ResumePoint {
	return &relayv1.ResumePoint{Epoch: "e", Revision: revision}
}

func whole(revision uint64, changes ...*relayv1.Change) *relayv1.Batch {
	return &relayv1.Batch{At: at(revision), SnapshotStart: true, SnapshotEnd: true, Changes: changes, Clusters: bothSynced()}
}

func bothSynced() []*relayv1.ClusterState {
	return []*relayv1.ClusterState{{Name: "east", Synced: true, Local: true}, {Name: "west", Synced: true}}
}

func newTables(t testing.TB) *table.Tables {
	t.Helper()
	tables := table.New()
	return tables
}

func newIntake(t testing.TB, file string) *Intake {
	t.Helper()
	return New(Config{
		Tables: newTables(t), Node: "east-1", Snapshot: file, Version: "test", Changed: func() {}, Log: slog.New(slog.DiscardHandler),
	})
}

func handle(t *testing.T, i *Intake, b *relayv1.Batch) {
	t.Helper()
	if err := i.Handle(b); err != nil {
		t.Fatal(err)
	}
}

func restore(t *testing.T, file string) *Intake {
	t.Helper()
	i := newIntake(t, file)
	if err := i.Restore(); err != nil {
		t.Fatal(err)
	}
	return i
}

func save(t *testing.T, i *Intake) {
	t.Helper()
	if !i.flush() {
		t.Fatal(i.Err())
	}
	if err := i.journal.Close(); err != nil {
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
	for n := range 2*recordsInPortion + 1 {
		many = append(many, node("west", fmt.Sprintf("west-%d", n)))
	}
	handle(t, first, whole(9, append(many, node("east", "east-1"))...))
	save(t, first)

	second := restore(t, file)
	if second.Usable() || second.Complete() || second.Cluster() != "east" {
		t.Errorf("before the relay sent anything: usable %t, complete %t, cluster %q", second.Usable(), second.Complete(), second.Cluster())
	}
	second.StopWaiting()
	if !second.Usable() || second.Complete() {
		t.Errorf("without the relay: usable %t, complete %t; the disk may be behind the kernel", second.Usable(), second.Complete())
	}
	if p := second.Resume(); p.GetEpoch() != "e" || p.GetRevision() != 9 {
		t.Errorf("resume = %v", p)
	}
	if got, want := second.records.Len(), first.records.Len(); got != want || got != len(many)+1 {
		t.Errorf("%d records restored, want %d", got, want)
	}
	// Two batches are missing. Only with the second does the relay say that this is all.
	handle(t, second, &relayv1.Batch{At: at(10), Changes: []*relayv1.Change{node("west", "new")}})
	if second.Complete() {
		t.Error("complete before the stream has caught up")
	}
	handle(t, second, &relayv1.Batch{At: at(11), Changes: []*relayv1.Change{node("west", "newer")}, Clusters: bothSynced()})
	if !second.Complete() || !second.Completeness().All() {
		t.Error("incomplete though the stream was resumed")
	}
}

// A relay that has no snapshot ready yet sends an empty batch, which is no reason to plan what the disk says.
func TestAnEmptyBatchIsNoNews(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, node("east", "east-1")))
	save(t, i)
	j := restore(t, file)
	j.cfg.Changed = func() { t.Error("an empty batch wakes the agent") }
	handle(t, j, &relayv1.Batch{})
	if j.Usable() {
		t.Error("usable")
	}
}

func TestAnotherVersionsRecordsAreFollowedByAWholeSnapshot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, node("east", "east-1")))
	save(t, i)
	j := New(Config{Tables: newTables(t), Node: "east-1", Snapshot: file, Version: "newer", Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
	if err := j.Restore(); err != nil {
		t.Fatal(err)
	}
	if j.Resume() != nil || j.records.Len() != 1 || j.Cluster() != "east" {
		t.Errorf("resume %v, %d records, cluster %q", j.Resume(), j.records.Len(), j.Cluster())
	}
}

// writeV1 writes a file as agents did before the journal.
func writeV1(t *testing.T, file string, batches ...*relayv1.Batch) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	out := io.MultiWriter(f, sum)
	_, err = io.WriteString(out, "fairlead snapshot 1\n")
	for _, b := range batches {
		if err == nil {
			_, err = protodelim.MarshalTo(out, b)
		}
	}
	if err == nil {
		_, err = f.Write(sum.Sum(nil))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheFormerFormatIsReadAndReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	clusters := []*relayv1.ClusterState{{Name: "east", Synced: true}, {Name: "west", Synced: true}}
	writeV1(t, file,
		&relayv1.Batch{SnapshotStart: true, At: at(7), Clusters: clusters, Changes: []*relayv1.Change{node("east", "east-1")}},
		&relayv1.Batch{SnapshotEnd: true, Changes: []*relayv1.Change{node("west", "west-1")}})
	i := restore(t, file)
	if i.Cluster() != "east" || i.Resume() != nil || i.records.Len() != 2 {
		t.Errorf("cluster %q, resume %v, %d records", i.Cluster(), i.Resume(), i.records.Len())
	}
	handle(t, i, whole(9, node("east", "east-1"), node("east", "east-2")))
	save(t, i)
	j := restore(t, file)
	if j.Resume().GetRevision() != 9 || !j.records.Has("east/nodes/east-2") || j.records.Has("west/nodes/west-1") {
		t.Errorf("resume %v, %d records", j.Resume(), j.records.Len())
	}
}

// Two clusters may have a node of one name. An older snapshot can't say which is ours; the relay can.
func TestTwinNamesDontFreezeANode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	writeV1(t, file, &relayv1.Batch{SnapshotStart: true, SnapshotEnd: true, At: at(7), Changes: []*relayv1.Change{
		node("east", "east-1"), node("evil", "east-1"),
	}})
	i := restore(t, file)
	if c := i.Cluster(); c != "" {
		t.Errorf("cluster = %q though two have a node of this name", c)
	}
	handle(t, i, whole(1, node("east", "east-1"), node("evil", "east-1")))
	if c := i.Cluster(); c != "east" {
		t.Errorf("cluster = %q, want what the relay says", c)
	}
}

func TestTheClusterIsNeverGuessedFromARelaysRecords(t *testing.T) {
	i := newIntake(t, "")
	b := whole(1, node("evil", "east-1"))
	b.Clusters = []*relayv1.ClusterState{{Name: "evil", Synced: true}}
	handle(t, i, b)
	if c := i.Cluster(); c != "" || i.Complete() {
		t.Errorf("cluster = %q by a node's name, complete %t", c, i.Complete())
	}
	if p := i.Problems(); len(p) != 1 || !strings.Contains(p[0], "upgrade the operator") {
		t.Errorf("problems = %v", p)
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
	handle(t, i, &relayv1.Batch{SnapshotEnd: true, At: at(1), Clusters: []*relayv1.ClusterState{
		{Name: "east", SyncedKinds: []string{record.KindPolicy, record.KindIdentity}, Local: true}, {Name: "west"},
	}})
	if !i.Usable() || i.Complete() || !i.Complete(record.KindPolicy, record.KindIdentity) || i.Complete(record.KindPolicy, record.KindNode) {
		t.Errorf("usable %t, complete %t", i.Usable(), i.Complete())
	}
}

// A cluster that is dark or declared ahead keeps nothing of this cluster, nor of a third, from being pruned.
func TestOneClusterDoesNotSpeakForAnother(t *testing.T) {
	i := newIntake(t, "")
	b := whole(1, clusterInfo("east", 1, "10.1.0.0/16"), clusterInfo("west", 2, "10.2.0.0/16"), clusterInfo("dark", 3, "10.3.0.0/16"))
	b.Clusters = append(bothSynced(), &relayv1.ClusterState{Name: "dark", Stale: true}, &relayv1.ClusterState{Name: "declared-ahead", Stale: true})
	handle(t, i, b)
	c := i.Completeness()
	for name, ok := range map[string]bool{
		"own":                i.Complete(),
		"west's address":     c.Address(addr("10.2.3.4")),
		"west's identity":    c.Identity(2<<16 | 300),
		"a policy's number":  c.Identity(1<<24 | 5),
		"a range of west's":  c.Range(prefix("10.2.4.0/24")),
		"not dark's address": !c.Address(addr("10.3.0.1")),
		"not dark's number":  !c.Identity(3<<16 | 300),
		"nobody's address":   !c.Address(addr("192.0.2.9")),
	} {
		if !ok {
			t.Errorf("wrong about %s", name)
		}
	}
}

// A declared cluster of which there never was anything can't be in the kernel, if the disk is there to prove it.
func TestAClusterNeverHeardOfKeepsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	clusters := append(bothSynced(), &relayv1.ClusterState{Name: "declared-ahead", Stale: true})
	b := whole(1, clusterInfo("east", 1, "10.1.0.0/16"), clusterInfo("west", 2, "10.2.0.0/16"))
	b.Clusters = clusters
	i := newIntake(t, file)
	handle(t, i, b)
	if i.Completeness().Address(addr("192.0.2.9")) {
		t.Error("without a disk the former agent may have known the cluster")
	}
	save(t, i)
	j := restore(t, file)
	handle(t, j, &relayv1.Batch{At: at(1), Clusters: clusters})
	if !j.Completeness().Address(addr("192.0.2.9")) {
		t.Error("a cluster that was never heard of keeps another's node in the kernel")
	}
	handle(t, j, &relayv1.Batch{At: at(2), Changes: []*relayv1.Change{node("declared-ahead", "n")}})
	if j.Completeness().Address(addr("192.0.2.9")) {
		t.Error("the cluster is heard of now, and not complete")
	}
}

// What can't be understood is absent, and nothing stale is trusted in its place.
func TestAnUnreadableRecordTakesItsPredecessorAway(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, node("east", "east-1"), node("east", "east-2")))
	save(t, i)
	bad := node("east", "east-2")
	bad.Record.GetNode().Addresses = []string{"192.0.2.1", "not an address"}
	moved := node("east", "elsewhere")
	moved.Key = "east/nodes/east-1"
	handle(t, i, &relayv1.Batch{At: at(2), Changes: []*relayv1.Change{bad, moved}})
	if n := i.records.Len(); n != 0 {
		t.Errorf("%d records are still trusted", n)
	}
	p := i.Problems()
	if len(p) != 2 || !strings.Contains(p[0], "east/nodes/east-1") || !strings.Contains(p[1], "node.addresses") {
		t.Errorf("problems = %v", p)
	}
	save(t, i)
	if j := restore(t, file); j.records.Len() != 0 || j.Resume().GetRevision() != 2 {
		t.Errorf("from the disk: %d records at %v", j.records.Len(), j.Resume())
	}
	handle(t, i, &relayv1.Batch{At: at(3), Changes: []*relayv1.Change{node("east", "east-2"), {Key: "east/nodes/east-1"}}})
	if p := i.Problems(); len(p) != 0 || i.records.Len() != 1 {
		t.Errorf("after they are mended: %v, %d records", p, i.records.Len())
	}
}

// Without the record of its cluster a pod would be one of the world, reached in the clear.
func TestAClustersLastReadableRecordStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	handle(t, i, whole(1, clusterInfo("east", 1, "10.1.0.0/16"), clusterInfo("west", 2, "10.2.0.0/16")))
	bad := clusterInfo("west", 2, "10.2.0.0/99")
	handle(t, i, &relayv1.Batch{At: at(2), Changes: []*relayv1.Change{bad}})
	held := func(i *Intake) bool {
		c, ok := i.cfg.Tables.Clusters.Get("west/cluster")
		return ok && slices.Equal(c.PodCIDRs, []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")})
	}
	if !held(i) {
		t.Error("the last record is gone")
	}
	if p := i.Problems(); len(p) != 1 || !strings.Contains(p[0], "west/cluster") || !strings.Contains(p[0], "stays in force") {
		t.Errorf("problems = %v", p)
	}
	save(t, i)
	j := restore(t, file)
	if !held(j) {
		t.Error("the last record does not outlive a restart")
	}
	handle(t, j, whole(3, clusterInfo("east", 1, "10.1.0.0/16"), bad))
	if !held(j) {
		t.Error("a snapshot took the last record away")
	}
	handle(t, j, &relayv1.Batch{At: at(4), Changes: []*relayv1.Change{{Key: "west/cluster"}}})
	if held(j) {
		t.Error("a record that was removed is still there")
	}
}

// Without its policy a pod would be open.
func TestAPolicyIsNeverAbsentBecauseItIsUnreadable(t *testing.T) {
	i := newIntake(t, "")
	const key = "east/policies/PolicyOfNextYear/shop/a"
	handle(t, i, whole(1, &relayv1.Change{Key: key, Record: &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Policy{
		Policy: &recordv1.Policy{Kind: "PolicyOfNextYear", Namespace: "shop", Name: "a", SpecJson: []byte(`{"podSelector":{}}`)},
	}}}))
	if p, ok := i.cfg.Tables.Policies.Get(key); !ok || p.PolicyKind != "PolicyOfNextYear" {
		t.Errorf("policy = %v", p)
	}
	if p := i.Problems(); len(p) != 1 || !strings.Contains(p[0], "stays closed") {
		t.Errorf("problems = %v", p)
	}
}

func TestUnreadableRecordsAreBounded(t *testing.T) {
	i := newIntake(t, "")
	var many []*relayv1.Change
	for n := range 3 * maxUnreadable {
		c := node("east", fmt.Sprintf("n%d", n))
		c.Record.GetNode().Addresses = nil
		many = append(many, c)
	}
	handle(t, i, whole(1, many...))
	if p := i.Problems(); len(p) != maxUnreadable+1 {
		t.Errorf("%d problems", len(p))
	}
}

// On a full disk the last state stays, the problem is said, and what was missed is written once there is space.
func TestAFullDiskIsSaid(t *testing.T) {
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
	if !i.flush() {
		t.Error(i.Err())
	}
	for round := range uint64(3) {
		var many []*relayv1.Change
		for n := range 1500 {
			c := node("east", fmt.Sprintf("east-%d", n+2))
			c.Record.GetNode().WireguardPort = uint32(round)
			many = append(many, c)
		}
		handle(t, i, &relayv1.Batch{At: at(2 + round), Changes: many})
		if i.flush() || i.Err() == nil {
			t.Error("a full disk is not noticed")
		}
	}
	if n := len(i.queue.changes); n != 1500 {
		t.Errorf("%d changes wait for the disk, want one a record", n)
	}
	if j := restore(t, file); j.records.Len() != 1 || j.Resume().GetRevision() != 1 {
		t.Errorf("on the disk are %d records at %v", j.records.Len(), j.Resume())
	}
	// Most of them go again, and with them the reason to write them.
	var gone []*relayv1.Change
	for n := range 1400 {
		gone = append(gone, &relayv1.Change{Key: record.NodeKey("east", fmt.Sprintf("east-%d", n+2))})
	}
	handle(t, i, &relayv1.Batch{At: at(9), Changes: gone})
	save(t, i)
	if j := restore(t, file); j.records.Len() != 101 || j.Resume().GetRevision() != 9 {
		t.Errorf("on the disk are %d records at %v", j.records.Len(), j.Resume())
	}
}

func TestTheLastStateIsSavedOnTheWayOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	i := newIntake(t, file)
	i.cfg.Every = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	handle(t, i, whole(1, node("east", "east-1")))
	go func() { done <- i.Save(ctx) }()
	handle(t, i, whole(2, node("east", "east-1"), node("east", "east-2")))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if p := restore(t, file).Position(); p.GetRevision() != 2 {
		t.Errorf("saved = %v, want the last state", p)
	}
}

// A damaged file leaves nothing half restored, and is replaced.
func TestADamagedFileIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	writeV1(t, file, whole(1, node("east", "east-1")))
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	i := newIntake(t, file)
	if err := i.Restore(); err == nil || i.records.Len() != 0 || i.Cluster() != "" || i.Resume() != nil {
		t.Errorf("error %v, %d records, cluster %q", err, i.records.Len(), i.Cluster())
	}
	handle(t, i, whole(5, node("east", "east-2")))
	save(t, i)
	if j := restore(t, file); j.records.Len() != 1 || j.Resume().GetRevision() != 5 {
		t.Errorf("%d records at %v", j.records.Len(), j.Resume())
	}
}
