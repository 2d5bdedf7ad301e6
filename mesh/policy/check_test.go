// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// connections that are checked: all subjects with all peers.
func (s *sequence) connections() []Connection {
	var out []Connection
	var peers []Connection
	add := func(id uint32, addr string) {
		peers = append(peers, Connection{Peer: id, Addr: netip.MustParseAddr(addr)})
	}
	for cluster := range uint8(2) {
		for n := range 6 { // some of them within CIDRs that policies name
			add(identity.Of(cluster+1, uint16(identity.FirstLocal+n)), genAddresses[(n+int(cluster)*3)%len(genAddresses)])
		}
	}
	for n, text := range genAddresses {
		add(identity.World, text)
		add([]uint32{identity.RemoteNode, identity.Unknown, identity.Host}[n%3], text)
	}
	for n := range 6 {
		for _, c := range peers {
			for _, c.Dir = range []Direction{Ingress, Egress} {
				if c.Peer == identity.Host && c.Dir == Ingress {
					continue // policy isn't asked
				}
				for _, c.Proto = range []uint8{icmp.V4, icmp.V6, 47, protoTCP, protoUDP, protoSCTP} {
					of := []uint16{80, 443, 8080, 65535, 1000}
					switch {
					case c.Proto == 47:
						of = []uint16{0}
					case icmp.Is(c.Proto):
						of = icmpTypes[:5]
					}
					for _, c.Port = range of {
						c.Subject = identity.Of(1, uint16(identity.FirstLocal+n))
						out = append(out, c)
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
	problems := slices.DeleteFunc(s.engine.Problems(), func(p Problem) bool { return p.PolicyKey == "" || strings.Contains(p.Message, "has no room for all") })
	if !slices.Equal(problems, s.before.Problems) && len(problems)+len(s.before.Problems) > 0 {
		t.Fatalf("problems are %v, want %v", problems, s.before.Problems)
	}
}

// checkInside checks what the engine relies on.
func (s *sequence) checkInside(t *rapid.T) {
	e := s.engine
	contents := map[classKey]bool{}
	placed := 0
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
			s.flows = append(s.flows, &flow{Connection: c, judgement: j, epoch: s.kernel.epoch})
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
		if !s.subjects[f.Subject] || !s.had[f.Subject] || !after.knows(f.Peer) || !s.before.knows(f.Peer) {
			f.epoch = -1 // its packets come no more, or it is another pod
			continue
		}
		if f.epoch == k.epoch {
			continue
		}
		now := k.decide(f.Connection)
		stands := f.epoch >= k.fullEpoch && !now.noPolicy && f.group == now.group && f.class == now.class &&
			f.block == now.block && f.blockOfClass == now.blockOfClass
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
