// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
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
			CIDRs: max(1, tight("CIDRs", 4, 1000)),
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
}

// flow is a connection with what the datapath remembers of it.
type flow struct {
	Connection
	judgement
	epoch int
}

func newSequence(t *rapid.T, l Limits) *sequence {
	s := &sequence{
		limits: l, kernel: newKernel(), subjects: map[uint32]bool{},
		world: World{
			Cluster: "east", Node: "n1", Clusters: map[string]map[string]string{}, Identities: map[uint32]map[string]string{},
			NamedPorts: map[uint32]map[string][]uint16{}, Nodes: map[string]Node{}, Services: map[ServiceName]map[string]Service{},
		},
	}
	s.engine = NewEngine(Config{Cluster: "east", Node: "n1", Limits: l})
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
	w.Nodes, w.Services, w.Policies = maps.Clone(w.Nodes), maps.Clone(w.Services), slices.Clone(w.Policies)
	s.before, s.had = NewReference(&w), maps.Clone(s.subjects)
}

func (s *sequence) change(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		rapid.SampledFrom([]func(*rapid.T){
			s.setCluster, s.setNode, s.setService, s.setIdentity, s.setIdentity, s.setSubject, s.setSubject, s.setPorts, s.setPolicy, s.setPolicy, s.dropPolicy,
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

func (s *sequence) setNode(t *rapid.T) {
	name := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
	if rapid.IntRange(0, 3).Draw(t, "node is gone") == 0 {
		delete(s.world.Nodes, name)
		s.engine.SetNode(name, nil)
		return
	}
	n := genNode(t)
	s.world.Nodes[name] = n
	s.engine.SetNode(name, &n)
}

func (s *sequence) setService(t *rapid.T) {
	name := genServiceName(t)
	s.world.Services[name] = genServices(t)
	s.engine.SetService(name, s.world.Services[name])
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
	l := identity.PodLabels([]string{"east", "west"}[identity.ClusterOf(id)-1], ns, rapid.SampledFrom(genAccounts).Draw(t, "account"), own, genNamespaces[ns])
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
	g.oracle.audited = rapid.IntRange(0, 7).Draw(t, "audited by the cluster") == 0
	kind := rapid.SampledFrom(allKinds).Draw(t, "kind")
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
	s.engine = NewEngine(Config{Cluster: "east", Node: "n1", Limits: s.limits, Remembered: s.kernel.remembered()})
	load(s.engine, &s.world, s.subjects)
}

// step writes a delta, perhaps only a part of it before a restart, and checks each write.
func (s *sequence) step(t *rapid.T) {
	s.full = s.tight() // as the engine before a restart knew
	if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
		s.restart()
	}
	now := s.world
	after := NewReference(&now)
	switched := false
	s.knew = maps.Clone(s.kernel.identities)
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
