// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

const (
	clusters     = 250
	endpointsPer = 200
)

// endpointsOf makes a cluster's endpoint records, encoded as they lie in the store, and the claim they are held against.
func endpointsOf(tb testing.TB, id int) (record.Set, record.Claim) {
	tb.Helper()
	name := fmt.Sprintf("c%d", id)
	var recs []*recordv1.Record
	for i := range endpointsPer {
		recs = append(recs, &recordv1.Record{Cluster: name, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
			Namespace: "shop", Name: fmt.Sprintf("pod-%d", i), Node: "node-1", Identity: uint32(id)<<16 | 256,
			Addresses: []string{netip.AddrFrom4([4]byte{10, byte(id), byte(i / 250), byte(1 + i%250)}).String()},
		}}})
	}
	set, err := record.NewSet(recs...)
	if err != nil {
		tb.Fatal(err)
	}
	pods := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(id)}), 16)
	return set, record.Claim{Name: name, ID: uint8(id), MeshID: "demo", PodCIDRs: []netip.Prefix{pods}}
}

// BenchmarkMesh takes a mesh of 250 clusters with 200 pods each through an operator (decode, validate, hub) and into an
// agent's tables (intake), as at an agent's first contact. The network between them is left out.
func BenchmarkMesh(b *testing.B) {
	var sets []record.Set
	var claims []record.Claim
	for id := 1; id <= clusters; id++ {
		set, claim := endpointsOf(b, id)
		sets, claims = append(sets, set), append(claims, claim)
	}
	for b.Loop() {
		hub := relay.NewHub(relay.DefaultHistory)
		tables := table.New()
		in := intake.New(intake.Config{Tables: tables, Node: "node-1", Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
		for i, set := range sets {
			var changes []*relayv1.Change
			for key, data := range set {
				rec, err := record.Unmarshal(data)
				if err == nil {
					err = record.Validate(key, rec, claims[i])
				}
				if err != nil {
					b.Fatal(err)
				}
				changes = append(changes, &relayv1.Change{Key: key, Record: rec})
			}
			if err := hub.Apply(changes); err != nil {
				b.Fatal(err)
			}
			if err := in.Handle(&relayv1.Batch{SnapshotStart: i == 0, SnapshotEnd: i == len(sets)-1, Changes: changes, At: hub.At()}); err != nil {
				b.Fatal(err)
			}
		}
		if n := tables.Endpoints.Len(); n != clusters*endpointsPer {
			b.Fatalf("%d endpoints arrived, want %d", n, clusters*endpointsPer)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*clusters*endpointsPer), "ns/record")
}
