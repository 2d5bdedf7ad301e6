// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// kernel is what a planner's deltas add up to.
type kernel struct {
	peers     map[uint16]*Peer
	allowed   map[netip.Prefix]uint16 // what WireGuard would have: one peer for a prefix
	addresses map[netip.Addr]IPCacheEntry
	cidrs     map[netip.Prefix]IPCacheEntry
	encrypted map[netip.Prefix]struct{}
	routes    map[netip.Prefix]Route
}

func newKernel() *kernel {
	return &kernel{
		map[uint16]*Peer{}, map[netip.Prefix]uint16{}, map[netip.Addr]IPCacheEntry{},
		map[netip.Prefix]IPCacheEntry{}, map[netip.Prefix]struct{}{}, map[netip.Prefix]Route{},
	}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// apply fails if a delta has something twice, or something that is no change.
func (k *kernel) apply(t failer, d Delta) {
	t.Helper()
	applyChanges(t, k.addresses, d.Addresses)
	applyChanges(t, k.cidrs, d.CIDRs)
	applyChanges(t, k.routes, d.Routes)
	seen := map[netip.Prefix]bool{}
	for _, c := range d.Encrypted {
		if _, was := k.encrypted[c.Key]; was != c.Gone || seen[c.Key] {
			t.Fatalf("encrypted %+v: was %v, seen %v", c, was, seen[c.Key])
		}
		if seen[c.Key] = true; c.Gone {
			delete(k.encrypted, c.Key)
		} else {
			k.encrypted[c.Key] = struct{}{}
		}
	}
	k.applyPeers(t, d.Peers)
}

func applyChanges[K, V comparable](t failer, have map[K]V, changes []Change[K, V]) {
	t.Helper()
	seen := map[K]bool{}
	for _, c := range changes {
		old, was := have[c.Key]
		if seen[c.Key] {
			t.Fatalf("%v twice", c.Key)
		}
		if c.Gone && c.Value != *new(V) || c.Gone && !was || !c.Gone && was && old == c.Value {
			t.Fatalf("%+v is no change: was %v, %v", c, was, old)
		}
		if seen[c.Key] = true; c.Gone {
			delete(have, c.Key)
		} else {
			have[c.Key] = c.Value
		}
	}
}

func (k *kernel) applyPeers(t failer, changes []PeerChange) {
	t.Helper()
	seen := map[uint16]bool{}
	for _, c := range changes {
		if seen[c.Index] || c.Old != k.peers[c.Index] || c.New != nil && c.Old != nil && c.Old.equal(c.New) || c.New == c.Old {
			t.Fatalf("peer %d: %+v → %+v, was %+v, seen %v", c.Index, c.Old, c.New, k.peers[c.Index], seen[c.Index])
		}
		if seen[c.Index] = true; c.New == nil {
			delete(k.peers, c.Index)
		} else {
			k.peers[c.Index] = c.New
		}
		for _, prefix := range c.Removed {
			if k.allowed[prefix] == c.Index {
				delete(k.allowed, prefix)
			}
		}
	}
	for _, c := range changes {
		for _, prefix := range c.Added {
			k.allowed[prefix] = c.Index
		}
	}
	want := map[netip.Prefix]uint16{}
	for i, p := range k.peers {
		for _, prefix := range p.AllowedIPs {
			want[prefix] = i
		}
	}
	if !maps.Equal(k.allowed, want) {
		t.Fatalf("AllowedIPs by changes: %v, want %v", k.allowed, want)
	}
}

// equalTo holds what the deltas made against what Compute says.
func (k *kernel) equalTo(t failer, w *world, previous map[string]uint16, p *Planner) {
	t.Helper()
	w.planned()
	in := w.input()
	in.PreviousIndexes = previous
	want := Compute(in)
	peers := map[uint16]*Peer{}
	for _, peer := range want.Peers {
		peers[peer.Index] = &peer
	}
	if !maps.EqualFunc(peers, k.peers, (*Peer).equal) {
		t.Fatalf("peers\n%v\nwant\n%v", show(k.peers), show(peers))
	}
	encrypted := map[netip.Prefix]struct{}{}
	for prefix, e := range want.CIDRs {
		if e.Flags.Has(Tunnel) {
			encrypted[prefix] = struct{}{}
		}
	}
	if !maps.Equal(encrypted, k.encrypted) {
		t.Fatalf("encrypted %v, want %v", k.encrypted, encrypted)
	}
	if !maps.Equal(want.CIDRs, k.cidrs) {
		t.Fatalf("CIDRs\n%v\nwant\n%v", k.cidrs, want.CIDRs)
	}
	if !maps.Equal(want.IPCache, k.addresses) {
		t.Fatalf("addresses\n%v\nwant\n%v", k.addresses, want.IPCache)
	}
	routes := map[netip.Prefix]Route{}
	for _, r := range want.Routes {
		routes[r.Dst] = r
	}
	if !maps.Equal(routes, k.routes) {
		t.Fatalf("routes\n%v\nwant\n%v", k.routes, routes)
	}
	if got := p.Problems(); !slices.Equal(got, want.Problems) {
		t.Fatalf("problems\n%q\nwant\n%q", got, want.Problems)
	}
}

func show(peers map[uint16]*Peer) (out []Peer) {
	for _, i := range slices.Sorted(maps.Keys(peers)) {
		out = append(out, *peers[i])
	}
	return out
}

// Whatever changes, in whatever order, the deltas add up to what Compute says about the world as it is. A restarted
// planner that is given the indexes of the one before moves no peer.
func TestPlannerEqualsCompute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, k := emptyWorld(rapid.Bool().Draw(t, "own CNI")), newKernel()
		cfg := Config{Self: "n0", Cluster: "b", OwnCNI: w.ownCNI}
		p := NewPlanner(cfg)
		if rapid.Bool().Draw(t, "begin full") {
			*w = *genWorld(t)
			cfg.OwnCNI = w.ownCNI
			p = NewPlanner(cfg)
			w.setAll(p)
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				w.change(t, p)
			}
			previous := p.Indexes()
			k.apply(t, p.Step())
			k.equalTo(t, w, previous, p)
			if again := p.Step(); !again.Empty() {
				t.Fatalf("nothing was set, yet %+v", again)
			}
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				before := p.Indexes()
				cfg.Indexes, cfg.Keyed, k = before, maps.Clone(w.keyed), newKernel()
				p = NewPlanner(cfg)
				w.setAll(p)
				previous := p.Indexes()
				if !reflect.DeepEqual(before, previous) {
					t.Fatalf("remembers %v, was given %v", previous, before)
				}
				k.apply(t, p.Step())
				k.equalTo(t, w, previous, p)
			}
		}
	})
}

// A node that had a key is reached through the tunnel also while its key, or its record, is away: until nothing is known of it.
func TestANodeThatHadAKeyIsNotReachedInTheClear(t *testing.T) {
	there := netip.MustParseAddr("10.1.2.5")
	in := twoClusters()
	in.Clusters["east"].Encryption = wireGuard
	keyless := node("east", "e2", "192.0.2.12", "10.1.2.0/24").Node
	keyless.PublicKey = record.PublicKey{}
	for _, restarted := range []bool{false, true} {
		p, k := NewPlanner(Config{Self: "e1", Cluster: "east", Keyed: map[string]bool{"e2": restarted}}), newKernel()
		for name, c := range in.Clusters {
			p.SetCluster(name, c)
		}
		for _, n := range in.Nodes {
			if !restarted || n.Name != "e2" {
				p.SetNode(n.Cluster, n.Name, n.Node)
			}
		}
		for _, e := range in.Endpoints {
			p.SetEndpoint(e.Cluster, e.Namespace, e.Name, e.Endpoint)
		}
		for what, rec := range map[string]*record.Node{"without its key": keyless, "gone": nil} {
			k.apply(t, p.Step())
			p.SetNode("east", "e2", rec)
			k.apply(t, p.Step())
			if e, known := k.addresses[there]; !known || !e.Flags.Has(Tunnel) {
				t.Errorf("the node's record is %s, restarted %t: its pod is reached in the clear: %+v", what, restarted, e)
			}
		}
	}
}

// When all is gone, nothing is left.
func TestPlannerForgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		p := NewPlanner(Config{Self: "n0", Cluster: "b", OwnCNI: w.ownCNI})
		w.setAll(p)
		p.Step()
		for name := range w.clusters {
			p.SetCluster(name, nil)
		}
		for k := range w.nodes {
			p.SetNode(k[0], k[1], nil)
		}
		for k := range w.endpoints {
			p.SetEndpoint(k[0], k[1], k[2], nil)
		}
		p.SetNode("z", "never", nil)
		p.SetEndpoint("z", "x", "never", nil)
		p.Step()
		left := map[string]int{
			"clusters": len(p.clusters) - 1, "nodes": len(p.own.nodes) - 1, "endpoints": p.endpoints.n, "buckets": len(p.endpoints.buckets) - 16,
			"ranges": p.ranges.claims.Len(), "allowed": p.allowed.claims.Len(), "v4": len(p.addresses.v4), "v6": len(p.addresses.v6),
			"others": len(p.addresses.others), "node addresses": p.addresses.nodes.Len(), "disputes": len(p.disputes),
			"keys": len(p.keys), "indexes": len(p.Indexes()), "peers": len(p.peers), "mesh": len(p.mesh),
			"routes": len(p.routes), "within": p.within, "outside": p.outside, "problems": len(p.Problems()) - 1, "again": len(p.problems.again),
		}
		for what, n := range left {
			if n != 0 {
				t.Fatalf("%d %s are left: %v", n, what, left)
			}
		}
	})
}

// step plans what was set and holds it against Compute.
func (k *kernel) step(t *testing.T, w *world, p *Planner) {
	t.Helper()
	previous := p.Indexes()
	k.apply(t, p.Step())
	k.equalTo(t, w, previous, p)
}

// A node that has claimed an address all along gets a route to it once it is a pod CIDR, too.
func TestPodCIDRThatIsANodesAddress(t *testing.T) {
	w, k := emptyWorld(true), newKernel()
	p := NewPlanner(Config{Self: "n0", Cluster: "b", OwnCNI: true})
	n := node("b", "n1", "10.1.2.9", "10.1.1.0/24").Node
	w.setNode(p, "b", "n1", n)
	k.step(t, w, p)
	more := *n
	more.PodCIDRs = prefixes("10.1.1.0/24", "10.1.2.9/32")
	w.setNode(p, "b", "n1", &more)
	k.step(t, w, p)
	if len(k.routes) != 2 {
		t.Errorf("routes %v", k.routes)
	}
	w.setNode(p, "b", "n1", n)
	k.step(t, w, p)
}

// What a hostile cluster does with a whole range of its own changes nothing for others, and one pod more is one change.
func TestManyClaimOne(t *testing.T) {
	w, k := emptyWorld(false), newKernel()
	p := NewPlanner(Config{Self: "n0", Cluster: "b"})
	for i, name := range []string{"a", "b", "c"} {
		w.setCluster(p, name, &record.Cluster{ID: uint8(i + 1), PodCIDRs: prefixes(fmt.Sprintf("10.%d.0.0/16", i)), Encryption: wireGuard})
	}
	for i := range 200 {
		name := fmt.Sprint("n", i)
		n := node("c", name, fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("10.2.%d.0/24", i)).Node
		if i%2 == 0 {
			n.PodCIDRs = prefixes("10.2.0.0/16") // everybody's
		}
		n.PublicKey = key(fmt.Sprint(i / 4)) // of four nodes each
		w.setNode(p, "c", name, n)
		w.setEndpoint(p, "c", "x", name, &record.Endpoint{Namespace: "x", Name: name, Node: name, Addresses: addrs("10.2.0.1"), Identity: uint32(3<<16 + 256 + i)})
	}
	k.step(t, w, p)
	if lines := p.Problems(); len(lines) != maxProblems+1 {
		t.Errorf("%d problems", len(lines))
	}
	w.setNode(p, "a", "n1", node("a", "n1", "198.51.100.1", "10.0.1.0/24").Node)
	w.setEndpoint(p, "a", "x", "p", endpoint("a", "p", "n1", "10.0.1.5", 1<<16|256).Endpoint)
	k.step(t, w, p)
	w.setNode(p, "c", "n0", nil) // who had it all
	k.step(t, w, p)
	w.setEndpoint(p, "c", "x", "n1", nil)
	k.step(t, w, p)
}

// A node's address that is a pod's, too, is claimed twice. When the pod goes the other claim is still a problem.
func TestProblemWithTwoCauses(t *testing.T) {
	w, k := emptyWorld(false), newKernel()
	p := NewPlanner(Config{Self: "n0", Cluster: "b"})
	w.setNode(p, "b", "n1", node("b", "n1", "192.0.2.1", "10.1.1.0/24").Node)
	w.setNode(p, "b", "n2", node("b", "n2", "10.1.1.5", "10.1.2.0/24").Node)
	w.setEndpoint(p, "b", "shop", "p", endpoint("b", "p", "n2", "10.1.1.5", 1<<16|256).Endpoint)
	k.step(t, w, p)
	w.setEndpoint(p, "b", "shop", "p", nil)
	k.step(t, w, p)
	if want := "nodes b/n1 and b/n2 both claim 10.1.1.5/32; b/n1 keeps it"; !slices.Contains(p.Problems(), want) {
		t.Errorf("problems %q", p.Problems())
	}
}
