// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// After any sequence of changes and restarts, the maps decide as the reference does, blame included; and while a delta is
// written, every connection has the verdict from before until the switch, and the one from after it from then on.
func TestEngineFollowsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSequence(t, roomy)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			s.change(t)
			s.step(t)
		}
	})
}

// With too little room for anything, what the maps let pass is a part of what the reference does.
func TestEngineClosesWhatHasNoRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tight := func(name string, most, room int) int {
			if rapid.IntRange(0, 2).Draw(t, name+"?") > 0 {
				return room
			}
			return rapid.IntRange(0, most).Draw(t, name)
		}
		s := newSequence(t, Limits{
			Sets: tight("sets", 6, roomy.Sets), Classes: tight("classes", 8, roomy.Classes), Identities: tight("identities", 12, roomy.Identities),
			Chunks: tight("chunks", 4, roomy.Chunks), Subjects: tight("subjects", 12, roomy.Subjects),
		})
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			s.change(t)
			s.step(t)
		}
	})
}

// With little more room than is needed, numbers of sets, classes and groups are soon used again, and no flow takes one for
// what it was before.
func TestEngineReusesNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSequence(t, Limits{
			Sets: rapid.IntRange(10, 20).Draw(t, "sets"), Classes: rapid.IntRange(12, 30).Draw(t, "classes"), Identities: 100, Chunks: 100, Subjects: 24,
		})
		for range rapid.IntRange(4, 16).Draw(t, "steps") {
			s.change(t)
			s.step(t)
		}
	})
}

// sequence is a mesh that changes, an engine that follows it, and the maps that it fills.
type sequence struct {
	limits   Limits
	world    World
	subjects map[uint32]bool
	engine   *Engine
	kernel   *kernel
	before   *Reference // as of the last step
	had      map[uint32]bool
	knew     map[uint32]uint32 // identities with rows
	full     bool              // something had no room
	flows    []*flow
	policies int
}

// flow is a connection with what the datapath remembers of it.
type flow struct {
	Connection
	judgement
	epoch, peer int
}

func newSequence(t *rapid.T, l Limits) *sequence {
	s := &sequence{
		limits: l, kernel: newKernel(), subjects: map[uint32]bool{},
		world: World{
			Cluster: "east", Clusters: map[string]map[string]string{}, Identities: map[uint32]map[string]string{},
			NamedPorts: map[uint32]map[string][]uint16{},
		},
	}
	s.engine = NewEngine(Config{Cluster: "east", Limits: l})
	s.settle()
	for range rapid.IntRange(0, 12).Draw(t, "at first") {
		s.change(t)
	}
	return s
}

// settle keeps the world as it is now to compare with.
func (s *sequence) settle() {
	w := s.world
	w.Clusters, w.Identities, w.NamedPorts = maps.Clone(w.Clusters), maps.Clone(w.Identities), maps.Clone(w.NamedPorts)
	w.Policies = slices.Clone(w.Policies)
	s.before, s.had = NewReference(&w), maps.Clone(s.subjects)
}

func (s *sequence) change(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		rapid.SampledFrom([]func(*rapid.T){
			s.setCluster, s.setIdentity, s.setIdentity, s.setSubject, s.setSubject, s.setPorts, s.setPolicy, s.setPolicy, s.dropPolicy,
		}).Draw(t, "change")(t)
	}
}

func (s *sequence) setCluster(t *rapid.T) {
	name := rapid.SampledFrom([]string{"east", "west"}).Draw(t, "cluster")
	l := rapid.SampledFrom([]map[string]string{nil, {"env": "prod"}, {"env": "dev"}, {}}).Draw(t, "labels")
	s.world.Clusters[name] = l
	if l == nil {
		delete(s.world.Clusters, name)
	}
	s.engine.SetCluster(name, l)
}

func anyIdentity(t *rapid.T) uint32 {
	return identity.Of(uint8(rapid.IntRange(1, 2).Draw(t, "cluster")), uint16(identity.FirstLocal+rapid.IntRange(0, 5).Draw(t, "identity")))
}

func (s *sequence) setIdentity(t *rapid.T) {
	id := anyIdentity(t)
	if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
		delete(s.world.Identities, id)
		s.engine.SetIdentity(id, nil)
		return
	}
	own := map[string]string{}
	for key, values := range map[string][]string{"app": {"", "web", "db"}} {
		if v := rapid.SampledFrom(values).Draw(t, key); v != "" {
			own[key] = v
		}
	}
	if v := rapid.SampledFrom([]string{"", "1", "web"}).Draw(t, "tier"); v != "" {
		own["tier"] = v
	}
	ns := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
	l := identity.PodLabels([]string{"east", "west"}[identity.ClusterOf(id)-1], ns, "", own, genNamespaces[ns])
	s.world.Identities[id] = l
	s.engine.SetIdentity(id, l)
}

func (s *sequence) setSubject(t *rapid.T) {
	id := identity.Of(1, uint16(identity.FirstLocal+rapid.IntRange(0, 5).Draw(t, "subject")))
	present := rapid.IntRange(0, 3).Draw(t, "present") > 0
	if s.subjects[id] = true; !present {
		delete(s.subjects, id)
	}
	s.engine.SetSubject(id, present)
}

func (s *sequence) setPorts(t *rapid.T) {
	id, named := anyIdentity(t), map[string][]uint16{}
	for _, name := range []string{"http/TCP", "http/UDP", "admin/TCP"} {
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(genPorts), 0, 2, rapid.ID[int32]).Draw(t, name) {
			named[name] = append(named[name], uint16(n))
		}
		slices.Sort(named[name])
	}
	s.world.NamedPorts[id] = named
	s.engine.SetNamedPorts(id, named)
}

func (s *sequence) setPolicy(t *rapid.T) {
	g := &scene{}
	kind := rapid.SampledFrom([]string{KindNetworkPolicy, KindMeshNetworkPolicy, KindClusterMeshNetworkPolicy}).Draw(t, "kind")
	g.addPolicy(t, kind, rapid.IntRange(0, 3).Draw(t, "name"))
	m := g.in.Policies[0]
	s.world.Policies = append(slices.DeleteFunc(slices.Clone(s.world.Policies), func(o *Model) bool { return o.key == m.key }), m)
	s.engine.SetPolicy(m.key, m)
}

func (s *sequence) dropPolicy(t *rapid.T) {
	if len(s.world.Policies) == 0 {
		return
	}
	n := rapid.IntRange(0, len(s.world.Policies)-1).Draw(t, "policy")
	s.engine.SetPolicy(s.world.Policies[n].key, nil)
	s.world.Policies = slices.Delete(slices.Clone(s.world.Policies), n, n+1)
}

// restart loses all but the maps.
func (s *sequence) restart() {
	s.kernel.rules = map[uint32]Rule{} // user space's
	s.engine = NewEngine(Config{Cluster: "east", Limits: s.limits, Remembered: s.kernel.remembered()})
	load(s.engine, &s.world, s.subjects)
}

// step writes a delta, perhaps only a part of it before a restart, and checks each write.
func (s *sequence) step(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
		s.restart()
	}
	now := s.world
	after := NewReference(&now)
	switched := false
	s.knew, s.full = maps.Clone(s.kernel.identities), s.full || len(s.engine.roomProblems()) > 0
	for again := 0; ; again++ {
		if again > 20 {
			t.Fatalf("the engine asks for another step without end")
		}
		d := s.engine.Step()
		ops, at := s.kernel.operations(d)
		crash := len(ops) + 1
		if again < 3 && rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
			crash = rapid.IntRange(0, len(ops)).Draw(t, "after")
		}
		sample := s.sample(t)
		for n, op := range ops {
			if n == crash {
				break
			}
			op()
			switched = switched || n >= at-1
			s.checkWrite(t, sample, after, switched)
			s.wake(t, after, switched)
		}
		if crash <= len(ops) {
			s.full = s.tight()
			s.restart()
			continue
		}
		put(s.kernel.rules, d.Rules)
		switched, s.full = true, s.tight()
		s.checkInside(t)
		if !d.Again {
			break
		}
	}
	s.full = false
	s.settle()
	s.checkAll(t)
	s.open(t)
}

// connections that are checked: all subjects with all peers.
func (s *sequence) connections() []Connection {
	var out []Connection
	peers := []Connection{{Peer: identity.World}, {Peer: identity.RemoteNode}}
	for cluster := range uint8(2) {
		for n := range 6 {
			peers = append(peers, Connection{Peer: identity.Of(cluster+1, uint16(identity.FirstLocal+n))})
		}
	}
	for _, text := range genAddresses {
		peers = append(peers, Connection{Peer: identity.World, Addr: netip.MustParseAddr(text)})
	}
	for n := range 6 {
		for _, c := range peers {
			for _, c.Dir = range []Direction{Ingress, Egress} {
				for _, c.Proto = range []uint8{1, protoTCP, protoUDP, protoSCTP} {
					for _, c.Port = range []uint16{80, 443, 8080, 65535, 1000} {
						c.Subject = identity.Of(1, uint16(identity.FirstLocal+n))
						if c.Proto != 1 || c.Port == 80 {
							out = append(out, c)
						}
					}
				}
			}
		}
	}
	return out
}

func (s *sequence) sample(t *rapid.T) []Connection {
	all := s.connections()
	out := make([]Connection, 25)
	for n := range out {
		out[n] = all[rapid.IntRange(0, len(all)-1).Draw(t, "connection")]
		if out[n].Proto == 1 {
			out[n].Port = 0
		}
	}
	return out
}

// wanted is what the reference says, for subjects of this node; others have no row.
func wanted(r *Reference, subjects map[uint32]bool, c Connection) Decision {
	if !subjects[c.Subject] {
		return Decision{Verdict: Deny, ByDefault: true}
	}
	return r.Evaluate(c)
}

// knows says whether the kernel knew a peer when the step began.
func (s *sequence) knows(c Connection) bool {
	_, known := s.knew[c.Peer]
	return known
}

// tight says whether something has no room now, or had none when the step began.
func (s *sequence) tight() bool { return s.full || len(s.engine.roomProblems()) > 0 }

// checkWrite compares what the maps say in the middle of a delta with the verdicts from before and after it.
func (s *sequence) checkWrite(t *rapid.T, sample []Connection, after *Reference, switched bool) {
	for _, c := range sample {
		old, want := wanted(s.before, s.had, c), wanted(after, s.subjects, c)
		got := s.kernel.decide(c)
		ok := got.Verdict == old.Verdict || got.Verdict == Deny && !after.knows(c.Peer)
		if switched {
			ok = got.Verdict == want.Verdict || got.noPolicy && !s.knows(c)
		}
		if s.tight() {
			ok = !got.Passes() || old.Passes() || want.Passes()
		}
		if !ok {
			t.Fatalf("switched %t: %+v: %+v, want %+v before and %+v after\n%s", switched, c, got, old, want, s)
		}
	}
	s.checkRoom(t)
}

func (s *sequence) checkRoom(t *rapid.T) {
	n := 0
	for _, lines := range s.kernel.groups {
		n += chunks(lines)
	}
	k, l := s.kernel, s.limits
	if n > l.Chunks || len(k.identities) > max(l.Identities, 1) || len(k.subjects) > l.Subjects {
		t.Fatalf("%d chunks, %d identities, %d subjects do not fit into %+v", n, len(k.identities), len(k.subjects), l)
	}
	for id := range k.classes {
		if int(id) >= l.Classes {
			t.Fatalf("class %d does not fit into %+v", id, l)
		}
	}
}

// checkAll compares everything.
func (s *sequence) checkAll(t *rapid.T) {
	full := len(s.engine.roomProblems()) > 0
	if full && s.limits == roomy {
		t.Fatalf("there is room and the engine says %v", s.engine.roomProblems())
	}
	for _, c := range s.connections() {
		if c.Proto == 1 {
			c.Port = 0
		}
		want, got := wanted(s.before, s.subjects, c), s.kernel.decide(c)
		if full && got.Passes() && !want.Passes() || !full && got.Decision != want {
			t.Fatalf("%+v: %+v, want %+v by %q\n%s", c, got, want, s.before.Rules[want.Rule].Text, s)
		}
	}
	if !maps.Equal(s.kernel.rules, s.before.Rules) {
		t.Fatalf("rules are %v, want %v", s.kernel.rules, s.before.Rules)
	}
	for _, m := range s.world.Policies {
		n, applies := s.engine.PolicySubjects(m.key)
		if want, is := s.before.PolicySubjects[m.key]; n != want || applies != is {
			t.Fatalf("%s has %d subjects (%t), want %d (%t)", m.key, n, applies, want, is)
		}
	}
	problems := slices.DeleteFunc(s.engine.Problems(), func(p Problem) bool { return p.PolicyKey == "" || strings.Contains(p.Message, "sets of peers") })
	if !slices.Equal(problems, s.before.Problems) && len(problems)+len(s.before.Problems) > 0 {
		t.Fatalf("problems are %v, want %v", problems, s.before.Problems)
	}
}

// checkInside checks what the engine relies on.
func (s *sequence) checkInside(t *rapid.T) {
	e := s.engine
	contents := map[classKey]bool{}
	placed := 1
	for id, cl := range e.classes.rows {
		if cl == nil {
			continue
		}
		placed += len(cl.members)
		if len(cl.members) == 0 || contents[cl.key()] || e.classes.byContent[cl.key()] != cl || s.kernel.classes[uint32(id)] != cl.bits {
			t.Fatalf("class %d is empty, has a twin or is another in the kernel", id)
		}
		contents[cl.key()] = true
		for _, i := range cl.members {
			if e.bitsOf(i) != cl.bits || s.kernel.identities[i.id] != cl.id || i.class != cl {
				t.Fatalf("identity %s is in class %d, which has other sets", identity.Name(i.id), id)
			}
		}
	}
	if placed != e.classes.placed || len(e.freeing)+len(e.idle)+len(e.lonely)+len(e.unfinished)+len(e.pending)+len(e.ghosts)+len(e.arrived)+len(e.changed) > 0 {
		t.Fatalf("something is left over")
	}
	used := 0
	for bit, set := range e.byBit {
		if set == nil {
			continue
		}
		used++
		if set.bit != uint16(bit) || len(set.users) == 0 || s.kernel.sets[uint16(bit)] != set.hash() {
			t.Fatalf("bit %d is wrong", bit)
		}
	}
	if used != e.bits.used || len(s.kernel.sets) != used || len(e.sets) != used+len(e.bitless) {
		t.Fatalf("%d bits are used, the pool says %d, the kernel has %d", used, e.bits.used, len(s.kernel.sets))
	}
	for _, id := range s.kernel.cidrs {
		if _, known := s.kernel.identities[id]; !known && !s.tight() {
			t.Fatalf("identity %s has no row", identity.Name(id))
		}
	}
	if !maps.Equal(e.CIDRs(), s.kernel.cidrs) {
		t.Fatalf("CIDRs are %v, want %v", s.kernel.cidrs, e.CIDRs())
	}
}

// open starts flows, for later steps to wake.
func (s *sequence) open(t *rapid.T) {
	for _, c := range s.sample(t) {
		if j := s.kernel.decide(c); !j.noPolicy {
			s.flows = append(s.flows, &flow{Connection: c, judgement: j, epoch: s.kernel.epoch, peer: int(s.kernel.peer(c))})
		}
	}
	s.flows = s.flows[max(0, len(s.flows)-60):]
}

// wake lets packets of flows pass, which are judged only as far as the datapath does, and checks that they are decided as a
// new flow would be.
func (s *sequence) wake(t *rapid.T, after *Reference, switched bool) {
	if len(s.flows) == 0 {
		return
	}
	for range 3 {
		f := s.flows[rapid.IntRange(0, len(s.flows)-1).Draw(t, "flow")]
		k := s.kernel
		if !s.subjects[f.Subject] || !s.had[f.Subject] || !f.Addr.IsValid() && !(after.knows(f.Peer) && s.before.knows(f.Peer)) {
			f.epoch = -1 // its packets come no more, or it is another pod
			continue
		}
		if f.epoch == k.epoch {
			continue
		}
		now := k.decide(f.Connection)
		stands := f.epoch >= k.fullEpoch && !now.noPolicy && f.group == now.group && f.class == now.class
		if stands && f.Verdict != now.Verdict {
			t.Fatalf("switched %t: flow %+v keeps %+v where a new one has %+v\n%s", switched, f.Connection, f.judgement, now, s)
		}
		if !now.noPolicy {
			f.judgement, f.epoch = now, k.epoch
		}
	}
}

func (s *sequence) String() string {
	var b strings.Builder
	for _, p := range s.world.Policies {
		fmt.Fprintf(&b, "%s %s\n", p.Key(), p.rec.Spec)
	}
	for _, id := range sortedKeys(s.world.Identities) {
		fmt.Fprintf(&b, "%d subject %t %v ports %v\n", id, s.subjects[id], s.world.Identities[id], s.world.NamedPorts[id])
	}
	fmt.Fprintf(&b, "clusters %v\n", s.world.Clusters)
	return b.String()
}
