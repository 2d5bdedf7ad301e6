// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// bigMesh is an Intake that knows many clusters, with a real hub behind it.
type bigMesh struct {
	intake   *Intake
	clusters []v1alpha1.MeshCluster
}

// newBigMesh makes that many clusters with as many endpoints and a hundredth as many nodes each.
func newBigMesh(b *testing.B, clusters, endpoints int) *bigMesh {
	b.Helper()
	m := &bigMesh{intake: NewIntake(relay.NewHub(0), slog.New(slog.DiscardHandler))}
	m.intake.Changed(&v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "own", ClusterID: 255, PodCIDRs: []string{"10.255.0.0/16"}}, export.Delta{})
	for id := 1; id <= clusters; id++ {
		m.declare(id)
	}
	m.decide()
	for id := 1; id <= clusters; id++ {
		m.fill(b, id, endpoints)
	}
	return m
}

func clusterName(id int) string { return fmt.Sprintf("c%03d", id) }

func (m *bigMesh) declare(id int) {
	m.clusters = append(m.clusters, meshCluster(clusterName(id), int32(id), 0, fmt.Sprintf("10.%d.0.0/16", id)))
}

func (m *bigMesh) decide() {
	own := &v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "own", ClusterID: 255, PodCIDRs: []string{"10.255.0.0/16"}}
	m.intake.SetDecisions(Decide(own, m.clusters))
}

func (m *bigMesh) fill(b *testing.B, id, endpoints int) {
	b.Helper()
	var events []store.Event
	add := func(rec *recordv1.Record) { events = append(events, eventOf(b, rec)) }
	for i := range endpoints / 100 {
		n := node(clusterName(id), fmt.Sprintf("n%d", i), fmt.Sprintf("192.%d.%d.%d", 100+id/250, id%250, 1+i%250), 0)
		n.GetNode().WireguardPublicKey = ""
		add(n)
	}
	for i := range endpoints {
		address := netip.AddrFrom4([4]byte{10, byte(id), byte(i / 250), byte(1 + i%250)}).String()
		add(endpoint(clusterName(id), fmt.Sprintf("pod-%d", i), address, uint32(id)<<16|256))
	}
	for start := 0; start < len(events); start += 1000 {
		m.intake.Records(clusterName(id), events[start:min(start+1000, len(events))])
	}
	m.intake.Cluster(clusterName(id), store.ClusterState{Synced: true})
}

func eventOf(tb testing.TB, rec *recordv1.Record) store.Event {
	tb.Helper()
	key, err := record.Key(rec)
	if err != nil {
		tb.Fatal(err)
	}
	data, err := record.Marshal(rec)
	if err != nil {
		tb.Fatal(err)
	}
	return store.Event{Cluster: rec.GetCluster(), Key: key, Value: data}
}

// BenchmarkOneChange: one endpoint of one of 250 clusters changes, with 250,000 records held.
func BenchmarkOneChange(b *testing.B) {
	m := newBigMesh(b, 250, 1000)
	var events [2][]store.Event
	for i := range events {
		rec := endpoint(clusterName(7), "pod-1", fmt.Sprintf("10.7.200.%d", 1+i), 7<<16|256)
		events[i] = []store.Event{eventOf(b, rec)}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.intake.Records(clusterName(7), events[i%2])
		i++
	}
}

// longestWait asks for an overview again and again until f is done, and gives the longest time that one took: about as
// long as the lock was held.
func longestWait(i *Intake, f func()) time.Duration {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		most := time.Duration(0)
		for {
			select {
			case <-stop:
				longest <- most
				return
			default:
			}
			start := time.Now()
			i.Overview()
			most = max(most, time.Since(start))
		}
	}()
	f()
	close(stop)
	return <-longest
}

// BenchmarkJoin: a small cluster joins 250 others with 200,000 records; a member's claim changes that has 60,000 records.
func BenchmarkJoin(b *testing.B) {
	b.Run("newcomer", func(b *testing.B) {
		m := newBigMesh(b, 250, 800)
		m.fill(b, 251, 800)
		all := m.clusters
		var waited time.Duration
		for b.Loop() {
			m.clusters = append(all[:len(all):len(all)], meshCluster(clusterName(251), 251, 0, "10.251.0.0/16"))
			waited = max(waited, longestWait(m.intake, m.decide))
			b.StopTimer()
			m.clusters = all
			m.decide()
			m.fill(b, 251, 800)
			b.StartTimer()
		}
		b.ReportMetric(float64(waited.Microseconds())/1000, "ms-longest-wait")
	})
	b.Run("large", func(b *testing.B) {
		m := newBigMesh(b, 0, 0)
		m.declare(1)
		m.fill(b, 1, 60_000)
		var waited time.Duration
		i := 0
		for b.Loop() {
			m.clusters[0].Spec.ExportNamespaces = [][]string{{"shop"}, {"shop", "other"}}[i%2]
			waited = max(waited, longestWait(m.intake, m.decide))
			i++
		}
		b.ReportMetric(float64(waited.Microseconds())/1000, "ms-longest-wait")
	})
}

// BenchmarkOverview: 250 clusters, one of which has 50,000 records that were refused.
func BenchmarkOverview(b *testing.B) {
	m := newBigMesh(b, 250, 10)
	var events []store.Event
	for i := range 50_000 {
		events = append(events, eventOf(b, endpoint(clusterName(9), fmt.Sprintf("bad-%d", i), "192.0.2.1", 9<<16|256)))
	}
	m.intake.Records(clusterName(9), events)
	b.ReportAllocs()
	for b.Loop() {
		m.intake.Overview()
	}
}
