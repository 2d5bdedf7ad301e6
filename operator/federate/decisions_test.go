// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

// oracle judges every record of every cluster anew at every change.
type oracle struct {
	decisions map[string]Decision
	raw, good map[string][]byte
	synced    map[string]bool // as the store has it
	complete  map[string]bool
}

func newOracle() *oracle {
	return &oracle{raw: map[string][]byte{}, good: map[string][]byte{}, synced: map[string]bool{}, complete: map[string]bool{}}
}

func (o *oracle) taking(cluster string) *record.Claim {
	if d := o.decisions[cluster]; !d.Frozen {
		return d.Claim
	}
	return nil
}

func valid(key string, data []byte, claim *record.Claim) bool {
	rec, err := record.Unmarshal(data)
	return err == nil && record.Validate(key, rec, *claim) == nil
}

func (o *oracle) judge() {
	keys := map[string]bool{}
	for key := range o.raw {
		keys[key] = true
	}
	for key := range o.good {
		keys[key] = true
	}
	for key := range keys {
		claim := o.taking(record.ClusterOf(key))
		if claim == nil {
			continue
		}
		raw, stored := o.raw[key]
		switch {
		case !stored:
			delete(o.good, key)
		case valid(key, raw, claim):
			o.good[key] = raw
		case o.good[key] != nil && !valid(key, o.good[key], claim):
			delete(o.good, key)
		}
	}
	for cluster, d := range o.decisions {
		switch {
		case d.Claim == nil:
			o.complete[cluster] = false
		case !d.Frozen:
			o.complete[cluster] = o.synced[cluster]
		}
	}
}

func (o *oracle) refused() map[string]int {
	n := map[string]int{}
	for key, raw := range o.raw {
		if claim := o.taking(record.ClusterOf(key)); claim != nil && !valid(key, raw, claim) {
			n[record.ClusterOf(key)]++
		}
	}
	return n
}

func (o *oracle) decide(decisions map[string]Decision) {
	for name := range o.decisions {
		if _, still := decisions[name]; !still {
			o.forget(name)
		}
	}
	o.decisions = decisions
	o.judge()
}

func (o *oracle) forget(cluster string) {
	of := func(key string, _ []byte) bool { return record.ClusterOf(key) == cluster }
	maps.DeleteFunc(o.raw, of)
	maps.DeleteFunc(o.good, of)
	delete(o.synced, cluster)
	delete(o.complete, cluster)
}

var others = []string{"north", "south", "west"}

// drawDecisions draws MeshClusters whose numbers and ranges clash now and then, also with nodes' addresses.
func drawDecisions(t *rapid.T) map[string]Decision {
	var clusters []v1alpha1.MeshCluster
	for n, name := range others {
		if rapid.IntRange(0, 5).Draw(t, name+" gone") == 0 {
			continue
		}
		cidrs := rapid.SampledFrom([][]string{
			{fmt.Sprintf("10.%d.0.0/16", n+2)}, {fmt.Sprintf("10.%d.0.0/16", n+2)}, {fmt.Sprintf("10.%d.0.0/24", n+2)},
			{fmt.Sprintf("10.%d.0.0/16", n+2), fmt.Sprintf("198.51.100.%d/32", n+1)}, {"10.2.0.0/15"}, {"192.0.0.0/12"}, {"192.0.2.0/25", "2001:db8::/48"},
		}).Draw(t, name+" podCIDRs")
		c := meshCluster(name, int32(rapid.SampledFrom([]int{n + 2, n + 2, n + 2, 2}).Draw(t, name+" id")), n, cidrs...)
		c.Spec.Suspend = rapid.IntRange(0, 4).Draw(t, name+" suspended") == 0
		c.Spec.ExportNamespaces = rapid.SampledFrom([][]string{nil, nil, {"shop"}, {"other"}}).Draw(t, name+" exports")
		clusters = append(clusters, c)
	}
	return Decide(eastMesh(), clusters)
}

func drawRecord(t *rapid.T, cluster string) *recordv1.Record {
	n := slices.Index(others, cluster) + 2
	id := uint32(rapid.SampledFrom([]int{n, n, 2}).Draw(t, "id"))<<16 | 256
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
	address := rapid.SampledFrom([]string{fmt.Sprintf("10.%d.0.1", n), fmt.Sprintf("10.%d.7.1", n), "10.2.0.9", "192.0.2.7", fmt.Sprintf("198.51.100.%d", n-1), "nonsense"}).Draw(t, "address")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		rec := node(cluster, name, address, 0)
		rec.GetNode().WireguardPublicKey = ""
		if rapid.Bool().Draw(t, "two addresses") {
			rec.GetNode().Addresses = append(rec.GetNode().Addresses, "2001:db8::1")
		}
		return rec
	case 1:
		return endpoint(cluster, name, address, id)
	case 2:
		rec := &recordv1.Identity{Id: id, Labels: map[string]string{v1alpha1.LabelCluster: rapid.SampledFrom([]string{cluster, "west"}).Draw(t, "label")}}
		return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Identity{Identity: rec}}
	case 3:
		rec := &recordv1.Service{Namespace: "shop", Name: name, Global: true, Shared: true}
		return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Service{Service: rec}}
	}
	return policy(cluster, name)
}

// However decisions and records change, agents hold what they would if everything were judged at every change.
func TestIncrementalDecisionsEqualJudgingEverything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := newScene(t)
		s.intake.slice = 2
		o := newOracle()
		rt.Repeat(map[string]func(*rapid.T){
			"decide": func(rt *rapid.T) {
				d := drawDecisions(rt)
				s.intake.SetDecisions(d)
				o.decide(d)
			},
			"put": func(rt *rapid.T) {
				cluster := rapid.SampledFrom(others).Draw(rt, "cluster")
				for range rapid.IntRange(1, 4).Draw(rt, "records") {
					ev := eventOf(t, drawRecord(rt, cluster))
					s.intake.Records(cluster, []store.Event{ev})
					o.raw[ev.Key] = ev.Value
					o.judge()
				}
			},
			"remove": func(rt *rapid.T) {
				if len(o.raw) == 0 {
					return
				}
				key := rapid.SampledFrom(slices.Sorted(maps.Keys(o.raw))).Draw(rt, "key")
				s.gone(record.ClusterOf(key), key)
				delete(o.raw, key)
				o.judge()
			},
			"complete": func(rt *rapid.T) {
				cluster := rapid.SampledFrom(others).Draw(rt, "cluster")
				s.intake.Cluster(cluster, store.ClusterState{Synced: true})
				o.synced[cluster] = true
				o.judge()
			},
			"operator restarts": func(*rapid.T) {
				s = newScene(t)
				s.intake.slice = 2
				clear(o.good)
				clear(o.complete)
				for _, key := range slices.Sorted(maps.Keys(o.raw)) {
					s.intake.Records(record.ClusterOf(key), []store.Event{{Cluster: record.ClusterOf(key), Key: key, Value: o.raw[key]}})
				}
				for cluster := range o.synced {
					s.intake.Cluster(cluster, store.ClusterState{Synced: true})
				}
				s.intake.SetDecisions(o.decisions)
				o.judge()
			},
			"": func(rt *rapid.T) { compare(rt, s, o) },
		})
	})
}

func compare(rt *rapid.T, s *scene, o *oracle) {
	want, counts := map[string]string{}, map[string]map[string]int32{}
	for key, data := range o.good {
		cluster, kind := record.ClusterOf(key), record.Kind(key)
		if counts[cluster] == nil {
			counts[cluster] = map[string]int32{}
		}
		counts[cluster][kind]++
		if kind != record.KindPolicy {
			want[key] = string(data)
		}
	}
	got := map[string]string{}
	for key, rec := range s.agents.records {
		data, err := record.Marshal(rec)
		if err != nil {
			rt.Fatal(err)
		}
		got[key] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("agents hold (-oracle +got):\n%s", diff)
	}
	refused, overview := o.refused(), s.intake.Overview()
	for _, cluster := range others {
		r := overview.Remotes[cluster]
		if o.taking(cluster) != nil && r.Rejected != refused[cluster] {
			rt.Fatalf("%s: %d refused instead of %d: %v", cluster, r.Rejected, refused[cluster], r.Rejections)
		}
		maps.DeleteFunc(r.Records, func(_ string, n int32) bool { return n == 0 })
		if !maps.Equal(r.Records, counts[cluster]) {
			rt.Fatalf("%s: counted %v instead of %v", cluster, r.Records, counts[cluster])
		}
		_, declared := o.decisions[cluster]
		if st := s.agents.states[cluster]; (st != nil) != declared || st.GetSynced() != (declared && o.complete[cluster]) {
			rt.Fatalf("%s: %v, declared %v and complete %v", cluster, st, declared, o.complete[cluster])
		}
	}
}

// Records that come while a large cluster is judged are not lost, nor do they wait for its end.
func TestRecordsComeWhileDecisionsAreTaken(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.intake.slice = 7
	const records = 500
	version := func(i, v int) *recordv1.Record {
		rec := endpoint("west", podName(i), "10.2.0.1", 2<<16|256)
		rec.GetEndpoint().Node = fmt.Sprintf("n%d", v)
		return rec
	}
	for i := range records {
		s.put("west", version(i, 0))
	}
	narrow := west
	narrow.Spec.PodCIDRs = []string{"10.2.128.0/17"}
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 21 { // the last is wide
			s.accept([]v1alpha1.MeshCluster{west, narrow}[i%2])
		}
	})
	all.Go(func() {
		for v := 1; v <= 3; v++ {
			for i := range records {
				s.put("west", version(i, v))
			}
		}
		s.gone("west", "west/endpoints/shop/"+podName(0))
	})
	all.Wait()
	if n := len(s.agents.records); n != records-1 {
		t.Errorf("%d records are with the agents", n)
	}
	for i := 1; i < records; i++ {
		want := version(i, 3)
		if got := s.agents.records["west/endpoints/shop/"+podName(i)]; !proto.Equal(got, want) {
			t.Fatalf("%d is %v", i, got)
		}
	}
}

// A cluster that joins touches nobody's records but those of nodes with an address in its ranges.
func TestJoinJudgesOnlyTheNodesInItsRanges(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", endpoint("west", "a", "10.2.0.1", 2<<16|256), node("west", "n1", "192.0.2.1", 1), node("west", "n2", "198.51.100.1", 2), node("west", "n3", "10.9.0.1", 3))
	s.wantKeys("west/endpoints/shop/a", "west/nodes/n1", "west/nodes/n2", "west/nodes/n3")
	// What lies in the store is made unreadable behind the Intake's back: whatever is judged now shows.
	for _, records := range s.intake.remotes["west"].kinds {
		for _, h := range records {
			h.raw = []byte("garbage")
		}
	}
	s.accept(west, meshCluster("north", 3, 0, "10.9.0.0/16"))
	s.wantKeys("west/endpoints/shop/a", "west/nodes/n1", "west/nodes/n2")
	s.wantRejected("west", "west/nodes/n3 Malformed")
	s.accept(west)
	s.wantRejected("west", "west/nodes/n3 Malformed")
}

// A node that agents have may hide behind something else in the store: it is found by its own address all the same.
func TestJoinFindsNodesThatLieBehindRefusedOnes(t *testing.T) {
	for name, hide := range map[string][]byte{"garbage": []byte("garbage"), "too large": make([]byte, record.MaxSize+1)} {
		s := newScene(t)
		s.accept(west)
		s.put("west", node("west", "n1", "10.9.0.5", 1))
		s.intake.Records("west", []store.Event{{Cluster: "west", Key: "west/nodes/n1", Value: hide}})
		s.wantKeys("west/nodes/n1")
		s.accept(west, meshCluster("north", 3, 0, "10.9.0.0/16"))
		if len(s.agents.records) > 0 {
			t.Errorf("%s: agents have %v, whose address is one of north's pods", name, s.agents.keys())
		}
		s.gone("west", "west/nodes/n1")
		if len(s.intake.shared.addresses.of) > 0 {
			t.Errorf("%s: left: %v", name, s.intake.shared.addresses.of)
		}
	}
}

// Heartbeats judge no node again whose key another one still has.
func TestHeartbeatsJudgeOnlyNodesWhoseKeyIsFree(t *testing.T) {
	s := newScene(t)
	s.accept(west)
	s.put("west", node("west", "n1", "192.0.2.1", 1), node("west", "n2", "192.0.2.2", 1))
	s.intake.remotes["west"].kinds[record.KindNode]["west/nodes/n2"].raw = []byte("garbage") // so that judging shows
	s.intake.Cluster("west", store.ClusterState{Synced: true})
	s.wantRejected("west", "is already the key of west/nodes/n1")
	s.gone("west", "west/nodes/n1")
	s.intake.Cluster("west", store.ClusterState{Synced: true, Revision: 1})
	s.wantRejected("west", "Malformed")
}

func TestNodesAreFoundByRange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		index, have := newNodeAddresses(), map[string][]string{}
		addresses := []string{"10.1.0.1", "10.1.255.1", "10.2.0.1", "192.0.2.1", "2001:db8::1", "2001:db8:1::1", "2001:db9::1", "nonsense", "::ffff:10.1.0.1"}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "node")
				have[key] = rapid.SliceOfN(rapid.SampledFrom(addresses), 0, 3).Draw(rt, "addresses")
				index.set(key, have[key])
			},
			"find": func(rt *rapid.T) {
				p := prefix(rapid.SampledFrom(addresses[:7]).Draw(rt, "of"), rapid.IntRange(1, 128).Draw(rt, "bits"))
				got, want := map[string]bool{}, map[string]bool{}
				index.within(p, got)
				for key, list := range have {
					for _, s := range list {
						if a, ok := parse(s); ok && p.Contains(a) {
							want[key] = true
						}
					}
				}
				if !maps.Equal(got, want) {
					rt.Fatalf("in %s are %v, found %v", p, want, got)
				}
			},
		})
		for key := range have {
			index.set(key, nil)
		}
		if len(index.blocks) > 0 || len(index.of) > 0 {
			rt.Fatalf("left: %v", index)
		}
	})
}

func parse(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func prefix(s string, bits int) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, min(bits, a.BitLen())).Masked()
}
