// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// The ordinary policy that the first layout had no room for: a few rows a rule, whatever the size of the mesh.
func TestRowsFollowRules(t *testing.T) {
	w := &World{Cluster: "east", Clusters: map[string]map[string]string{}, Identities: map[uint32]map[string]string{}}
	for cluster := range uint8(5) {
		name := []string{"east", "west", "north", "south", "centre"}[cluster]
		w.Clusters[name] = map[string]string{"env": "prod"}
		for i := range 5_000 {
			w.Identities[identity.Of(cluster+1, uint16(identity.FirstLocal+i))] = pod(name, fmt.Sprintf("ns-%d", i%50), "app", fmt.Sprintf("app-%d", i))
		}
	}
	e, k := NewEngine(Config{Cluster: "east", Limits: roomy}), newKernel()
	subjects := map[uint32]bool{}
	for i := range 11 {
		subjects[identity.Of(1, uint16(identity.FirstLocal+i))] = true
	}
	load(e, w, subjects)
	k.apply(e.Step())

	everybody := parseMesh("everybody", `{"podSelector":{},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"namespaceSelector":{}}],"ports":[{"port":443}]}]}}`)
	e.SetPolicy(everybody.key, everybody)
	d := e.Step()
	k.apply(d)
	// A bit, a row for each cluster's class, a group, and a row for each subject.
	if n := d.rows() - len(d.Subjects); n > 7 || len(d.Subjects) != 11 || len(d.Before.Identities)+len(d.After.Identities) > 0 {
		t.Errorf("a policy takes %d rows and %d subjects: %+v", n, len(d.Subjects), d.Before)
	}
	if s := e.Stats(); s.Sets != 2 || s.Classes > 7 || s.Chunks != 1 || s.Identities != 25_003 {
		t.Errorf("maps hold %+v", s)
	}
	from := Connection{Subject: identity.Of(1, identity.FirstLocal), Peer: identity.Of(5, identity.FirstLocal+17), Proto: protoTCP, Port: 443}
	if from.Dir = Ingress; !k.decide(from).Passes() {
		t.Error("what the policy allows is denied")
	}
	if from.Port = 80; k.decide(from).Passes() {
		t.Error("what the policy does not allow passes")
	}

	e.SetIdentity(identity.Of(3, 60_000), pod("north", "ns-3", "app", "another"))
	if d := e.Step(); d.rows() != 1 || d.Switch || d.Forget {
		t.Errorf("an identity that appears changes %+v", d)
	}
}

// fromApp is a policy of the pods app=web that lets an app in.
func fromApp(app string) *Model {
	return Parse(&record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: "p", Spec: fmt.Appendf(nil,
		`{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":%q}}}]}]}`, app)})
}

// A flow that slept remembers a group and a class. When the bit in the group's line has another meaning since, both may look
// as before: such a flow must be judged anew. The second case restarts the agent in between, with a step that has nothing
// to do.
func TestFlowsForgetReusedNumbers(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			limits := roomy
			limits.Sets = 3
			w := smallWorld(fromApp("db").rec)
			for n := range uint32(4) { // so that theirs is the class that stays
				w.Identities[db+100+n] = pod("east", "shop", "app", "db", "n", fmt.Sprint(n))
			}
			e, k := NewEngine(Config{Cluster: w.Cluster, Limits: limits}), newKernel()
			load(e, w, nil)
			k.apply(e.Step())
			flow, epoch := k.decide(tcp80(web, db, Ingress)), k.epoch
			if !flow.Passes() {
				t.Fatal("what the policy allows is denied")
			}
			for _, app := range []string{"cache", "queue"} {
				e.SetPolicy(fromApp(app).key, fromApp(app))
				k.apply(e.Step())
				if restart && app == "cache" {
					e = NewEngine(Config{Cluster: w.Cluster, Limits: limits, Remembered: k.remembered()})
					w.Policies = []*Model{fromApp("cache")}
					load(e, w, nil)
					if d := e.Step(); d.writes() {
						t.Fatalf("a restart writes %+v", d)
					}
				}
			}
			now := k.decide(tcp80(web, db, Ingress))
			if now.Passes() {
				t.Fatal("what the policy does not allow passes")
			}
			if now.group != flow.group || now.class != flow.class {
				t.Fatalf("group and class are others: this proves nothing")
			}
			if epoch >= k.fullEpoch {
				t.Error("the flow still passes")
			}
		})
	}
}

// While the addresses of a new CIDR move from a wider one's identity to their own, the lines in force must mean them as
// before, even if their sets are about to be replaced.
func TestNewCIDRsKeepTheirSides(t *testing.T) {
	allow := parseMesh("a", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":{"allow":[{"peers":[{"cidr":"10.0.0.0/8"},{"clusterSelector":{"matchLabels":{"env":"dev"}}}]}]}}`)
	deny := parseMesh("b", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":{"deny":[{"peers":[{"cidr":"10.1.0.0/16"}]}]}}`)
	w := smallWorld(allow.rec)
	e, k := build(w)
	e.SetCluster("west", map[string]string{"env": "prod"})
	e.SetPolicy(deny.key, deny)
	ops, afterSwitch := k.operations(e.Step())
	c := Connection{Subject: web, Peer: identity.World, Addr: netip.MustParseAddr("10.1.2.3"), Dir: Ingress, Proto: protoTCP, Port: 80}
	far := tcp80(web, farWeb, Ingress)
	for n, op := range ops {
		op()
		if want := n < afterSwitch-1; k.decide(c).Passes() != want || k.decide(far).Passes() != want {
			t.Fatalf("after write %d of %d: address %+v, pod %+v", n, afterSwitch, k.decide(c), k.decide(far))
		}
	}
	if len(k.cidrs) != 2 {
		t.Errorf("CIDRs are %v", k.cidrs)
	}
}

// The same after a restart with policies that changed meanwhile: the set in force has only its bit left, nobody knows any
// more what it was about.
func TestNewCIDRsKeepTheirSidesAfterARestart(t *testing.T) {
	before := parseMesh("a", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":{"allow":[{"peers":[{"cidr":"0.0.0.0/0"}]}],"deny":[{"peers":[{"cidr":"10.0.0.0/8"}]}]}}`)
	after := parseMesh("a", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":{"allow":[{"peers":[{"cidr":"10.1.0.0/16"},{"cidr":"10.1.2.0/24"},{"cidr":"172.16.0.0/12"}]}]}}`)
	w := smallWorld(before.rec)
	_, k := build(w)
	e := NewEngine(Config{Cluster: w.Cluster, Limits: roomy, Remembered: k.remembered()})
	w.Policies = []*Model{after}
	load(e, w, nil)
	ops, afterSwitch := k.operations(e.Step())
	for n, op := range ops[:afterSwitch-1] {
		op()
		for addr, passes := range map[string]bool{"10.1.0.1": false, "10.1.2.3": false, "172.16.0.1": true} {
			c := tcp80(web, identity.World, Ingress)
			c.Addr = netip.MustParseAddr(addr)
			if got := k.decide(c); got.Passes() != passes {
				t.Fatalf("after %d writes of %d before the switch: %s passes: %t, want %t", n+1, afterSwitch-1, addr, got.Passes(), passes)
			}
		}
	}
}

// A revision or a description that changes is no other policy to the datapath.
func TestProvenanceChangesRulesAlone(t *testing.T) {
	rec := *fromApp("db").rec
	e, k := build(smallWorld(&rec))
	again := rec
	again.Provenance.Revision = "main@sha1:0123"
	e.SetPolicy(Key(&again), Parse(&again))
	d := e.Step()
	if d.writes() || len(d.Rules) != 2 {
		t.Errorf("another revision writes %+v", d)
	}
	k.apply(d)
	for id := range d.Rules {
		if k.rules[id].Provenance.Revision != "main@sha1:0123" {
			t.Errorf("rule %d is of %+v", id, k.rules[id].Provenance)
		}
	}
}

// What has no room comes back by itself when there is room.
func TestRoomIsUsedWhenItComes(t *testing.T) {
	limits := roomy
	limits.Chunks = 1
	w := smallWorld(fromApp("db").rec)
	e, k := NewEngine(Config{Cluster: w.Cluster, Limits: limits}), newKernel()
	load(e, w, nil)
	k.apply(e.Step())
	e.SetPolicy(fromApp("web").key, fromApp("web"))
	d := e.Step()
	k.apply(d)
	if !d.Again || k.decide(tcp80(web, web, Ingress)).Passes() || len(e.Problems()) == 0 {
		t.Fatalf("there is no room for a second group, and nothing says so: %+v", d)
	}
	d = e.Step()
	k.apply(d)
	if d.Again || !k.decide(tcp80(web, web, Ingress)).Passes() || k.decide(tcp80(web, db, Ingress)).Passes() || len(e.Problems()) > 0 {
		t.Fatalf("the room is not used: %v", e.Problems())
	}
}

// A churn of policies and identities leaves nothing behind.
func TestChurnLeavesNothing(t *testing.T) {
	w := smallWorld(fromApp("db").rec)
	e, k := build(w)
	before, stats := maps.Clone(k.identities), e.Stats()
	for n := range 3_000 {
		m := fromApp(fmt.Sprintf("app-%d", n))
		e.SetPolicy(m.key, m)
		e.SetIdentity(identity.Of(2, uint16(1000+n)), pod("west", fmt.Sprintf("ns-%d", n), "app", "x", fmt.Sprintf("key-%d", n), "y"))
		k.apply(e.Step())
		e.SetIdentity(identity.Of(2, uint16(1000+n)), nil)
	}
	e.SetPolicy(fromApp("db").key, fromApp("db"))
	k.apply(e.Step())
	if e.Stats() != stats || len(k.identities) != len(before) || len(k.sets) != 1 || len(k.groups) != 1 {
		t.Errorf("left over: %+v, was %+v", e.Stats(), stats)
	}
	left := []int{len(e.index.pods), len(e.index.spaces), len(e.terms.byLabel), len(e.sets), len(e.profiles), len(e.groups.byID)}
	if want := []int{4, 3, 1, 1, 3, 2}; !slices.Equal(left, want) {
		t.Errorf("left over: %v, want %v", left, want)
	}
	if len(e.groups.recent) > maxRecent+2 || len(e.gone) > maxGone+2 {
		t.Errorf("remembers %d groups and %d identities", len(e.groups.recent), len(e.gone))
	}
}

// Two contents with one hash get two ids, and the id of one that is gone is not taken for the other while a flow may
// remember it.
func TestGroupsWithEqualHashes(t *testing.T) {
	lines := func(rule uint32) []Line { return []Line{{Verdict: Allow, Rule: rule}} }
	seen := map[uint32]uint32{}
	for rule := uint32(1); ; rule++ {
		id := uint32(groupHash(Subject{}, lines(rule)))
		other, twice := seen[id]
		if !twice {
			seen[id] = rule
			continue
		}
		g := newGroups(10, nil)
		a, _ := g.get(Subject{}, lines(rule))
		b, _ := g.get(Subject{}, lines(other))
		if a.id == b.id {
			t.Fatal("two groups have one id")
		}
		g.release(a)
		g.release(b)
		g.sweep(map[uint32][]Line{})
		if c, _ := g.get(Subject{}, lines(other)); c.id == a.id {
			t.Error("a group has the id that another one just had")
		}
		if c, _ := g.get(Subject{}, lines(rule)); c.id != a.id {
			t.Error("a group that comes back has another id")
		}
		return
	}
}

// Rules with equal hashes have the same ids on every node, however the policies came.
func TestRulesWithEqualHashes(t *testing.T) {
	name := func(n int) *Model {
		return Parse(&record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: fmt.Sprintf("p%d", n), Spec: []byte(`{"podSelector":{}}`)})
	}
	a, b := name(518822), name(1410480) // found by trying
	id := ruleHash(&Rule{PolicyKey: a.key, Kind: RuleIsolate, Index: -1}, 0)
	if ruleHash(&Rule{PolicyKey: b.key, Kind: RuleIsolate, Index: -1}, 0) != id {
		t.Fatal("the hashes differ: this proves nothing")
	}
	w := smallWorld(a.rec)
	w.Policies = []*Model{a, b}
	want := NewReference(w).Rules
	e, k := NewEngine(Config{Cluster: w.Cluster, Limits: roomy}), newKernel()
	w.Policies = nil
	load(e, w, nil)
	for _, m := range []*Model{a, b} {
		e.SetPolicy(m.key, m)
		k.apply(e.Step())
	}
	if !maps.Equal(k.rules, want) || len(want) != 6 {
		t.Fatalf("rules are %v, want %v", k.rules, want)
	}
	first := min(a.key, b.key)
	if k.rules[id].PolicyKey != first {
		t.Errorf("the id went to %s, want %s", k.rules[id].PolicyKey, first)
	}
	e.SetPolicy(first, nil)
	k.apply(e.Step())
	if rule := k.rules[id]; rule.PolicyKey != max(a.key, b.key) || k.subjects[SubjectKey{web, Ingress}].DefaultRule != id {
		t.Errorf("alone, the other rule has another id: %+v", k.subjects)
	}
}

// Who an egress rule about a named port lets a pod reach follows the peers' labels, their ports and their clusters, in
// whatever order these become known.
func TestNamedPortsFollowTheirPods(t *testing.T) {
	m := parseMesh("named", `{"podSelector":{"matchLabels":{"app":"web"}},"egress":{"allow":[{"peers":[{"clusterSelector":{"matchLabels":{"env":"dev"}},"podSelector":{"matchLabels":{"app":"db"}}}],"ports":[{"name":"sql"}]}]}}`)
	w := smallWorld(m.rec)
	e, k := build(w)
	far := identity.Of(2, 999)
	expect := func(what string, ports ...uint16) {
		t.Helper()
		k.apply(e.Step())
		r := NewReference(w)
		for _, port := range []uint16{5432, 5433} {
			c := Connection{Subject: web, Peer: far, Dir: Egress, Proto: protoTCP, Port: port}
			if got, want := k.decide(c), r.Evaluate(c); got.Passes() != slices.Contains(ports, port) || got.Decision != want {
				t.Errorf("%s: port %d: %+v, want %+v", what, port, got, want)
			}
		}
	}
	ports := func(numbers ...uint16) {
		w.NamedPorts = map[uint32]map[string][]uint16{far: {"sql/TCP": numbers}}
		e.SetNamedPorts(far, w.NamedPorts[far])
	}
	labels := func(app string) {
		w.Identities[far] = pod("west", "shop", "app", app)
		e.SetIdentity(far, w.Identities[far])
	}
	ports(5432)
	expect("ports of an unknown identity")
	labels("db")
	expect("then its labels", 5432)
	ports(5432, 5433)
	expect("another number", 5432, 5433)
	ports(5433)
	expect("one number less", 5433)
	labels("cache")
	expect("labels that are not asked for")
	labels("db")
	expect("and back", 5433)
	w.Clusters["west"] = map[string]string{"env": "prod"}
	e.SetCluster("west", w.Clusters["west"])
	expect("labels of the cluster that are not asked for")
	if len(k.sets) != 0 || len(e.sets) != 0 {
		t.Errorf("sets are left over: %v", k.sets)
	}
	w.Clusters["west"] = map[string]string{"env": "dev"}
	e.SetCluster("west", w.Clusters["west"])
	expect("and back", 5433)
	delete(w.Identities, far)
	e.SetIdentity(far, nil)
	expect("an identity that is gone")
	labels("db")
	expect("and back", 5433)
}
