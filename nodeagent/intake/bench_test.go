// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

const benchClusters, benchEndpoints = 250, 1000 // of each

func benchEndpoint(cluster, n, version int) *relayv1.Change {
	name := fmt.Sprintf("cluster-%d", cluster)
	e := &recordv1.Endpoint{
		Namespace: "shop", Name: fmt.Sprintf("checkout-7d9c5b6f4d-%05d", n), Node: fmt.Sprintf("node-%d", n%100),
		Addresses: []string{netip.AddrFrom4([4]byte{10, byte(cluster), byte(n / 250), byte(1 + n%250)}).String()},
		Identity:  uint32(cluster)<<16 | uint32(256+(n+version)%100),
	}
	return &relayv1.Change{Key: name + "/endpoints/shop/" + e.Name, Record: &recordv1.Record{
		Cluster: name, Payload: &recordv1.Record_Endpoint{Endpoint: e},
	}}
}

// received is a batch as gRPC decodes it.
func received(tb testing.TB, b *relayv1.Batch) *relayv1.Batch {
	tb.Helper()
	data, err := proto.Marshal(b)
	if err != nil {
		tb.Fatal(err)
	}
	out := &relayv1.Batch{}
	if err := proto.Unmarshal(data, out); err != nil {
		tb.Fatal(err)
	}
	return out
}

func fill(b *testing.B, i *Intake) {
	b.Helper()
	var states []*relayv1.ClusterState
	for c := 1; c <= benchClusters; c++ {
		states = append(states, &relayv1.ClusterState{Name: fmt.Sprintf("cluster-%d", c), Synced: true, Local: c == 1})
	}
	for c := 1; c <= benchClusters; c++ {
		batch := &relayv1.Batch{SnapshotStart: c == 1, SnapshotEnd: c == benchClusters}
		for n := range benchEndpoints {
			batch.Changes = append(batch.Changes, benchEndpoint(c, n, 0))
		}
		if batch.SnapshotEnd {
			batch.At, batch.Clusters = &relayv1.ResumePoint{Epoch: "e", Revision: 1}, states
		}
		if err := i.Handle(received(b, batch)); err != nil {
			b.Fatal(err)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkHeld says what an endpoint costs in memory, everything that the intake and the tables keep of it included.
func BenchmarkHeld(b *testing.B) {
	for b.Loop() {
		before := heap()
		i := newIntake(b, filepath.Join(b.TempDir(), "snapshot"))
		fill(b, i)
		if !i.flush() {
			b.Fatal(i.Err())
		}
		b.ReportMetric(float64(heap()-before)/(benchClusters*benchEndpoints), "B/endpoint")
		runtime.KeepAlive(i)
	}
}

// BenchmarkSave is one endpoint that changes among 250,000 and is written to the disk, the compactions that it takes included.
func BenchmarkSave(b *testing.B) {
	i := newIntake(b, filepath.Join(b.TempDir(), "snapshot"))
	fill(b, i)
	if !i.flush() {
		b.Fatal(i.Err())
	}
	first := i.journal.Size()
	n := 0
	for b.Loop() {
		n++
		if err := i.Handle(changeBatch(n)); err != nil {
			b.Fatal(err)
		}
		if !i.flush() {
			b.Fatal(i.Err())
		}
	}
	b.ReportMetric(float64(i.journal.Size()-first)/float64(n), "B/change")
	b.ReportMetric(float64(first), "B/file")
}

func changeBatch(n int) *relayv1.Batch {
	return &relayv1.Batch{
		At:      &relayv1.ResumePoint{Epoch: "e", Revision: uint64(n)},
		Changes: []*relayv1.Change{benchEndpoint(1+n%benchClusters, n%benchEndpoints, n)},
	}
}

// BenchmarkChange is one endpoint that changes among 250,000.
func BenchmarkChange(b *testing.B) {
	i := newIntake(b, "")
	fill(b, i)
	n := 0
	for b.Loop() {
		n++
		if err := i.Handle(changeBatch(n)); err != nil {
			b.Fatal(err)
		}
	}
}
