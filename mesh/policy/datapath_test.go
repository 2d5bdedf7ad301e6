// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build datapath

package policy

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// fuzzFor is how long both tests go on, one after the other; without it, as long as rapid's checks take.
var fuzzFor = flag.Duration("for", 0, "how long the tests of the datapath go on")

// fuzz checks a property for as long as was asked. Draws that fail it are kept in testdata/rapid, and tried first the next time.
func fuzz(t *testing.T, prop func(*rapid.T)) {
	begun, scenes := time.Now(), 0
	for again := true; again && !t.Failed(); again = time.Since(begun) < *fuzzFor/2 {
		rapid.Check(t, func(t *rapid.T) {
			scenes++
			prop(t)
		})
	}
	k := theKernel(t)
	t.Logf("%d scenes, %d packets (%d of running flows) in %s: %v; the rules of %d denials looked up",
		scenes, k.packets, k.again, time.Since(begun).Round(time.Second), k.verdicts, k.blames)
	if k.blames == 0 {
		t.Error("no rule of a denial was found: that proves nothing about blame")
	}
	for _, v := range []Verdict{Allow, Deny, AuditDeny} {
		if k.verdicts[v] == 0 && (v != AuditDeny || k.packets > 100_000) { // few policies audit
			t.Errorf("of %d packets none was judged %s: that proves nothing", k.packets, v)
		}
	}
	k.packets, k.again, k.blames, k.verdicts = 0, 0, 0, map[Verdict]int{}
}

// Four say the same of each packet: the policies' documentation (the oracle reads the API's objects), the reference, the rows that the
// engine compiled as user space reads them, and the kernel's programs with those rows in their maps.
func TestDatapathDecidesAsThePoliciesSay(t *testing.T) {
	fuzz(t, func(t *rapid.T) {
		s := genScene(t, rapid.IntRange(0, 3).Draw(t, "only NetworkPolicy?") == 0)
		r := NewReference(&s.in)
		_, rows := build(&s.in)
		k := theKernel(t)
		k.beginSequence()
		k.install(t, rows)
		var local []uint32
		for id, pod := range s.pods {
			if pod.cluster == "east" {
				local = append(local, id)
			}
		}
		if len(local) == 0 {
			return
		}
		slices.Sort(local)
		peers := slices.Sorted(maps.Keys(s.pods))
		draw := random(t)
		for range packetsAScene {
			c := draw.connection(local, peers)
			peer := oraclePeer{addr: c.Addr, own: c.Peer == identity.Host, unknown: c.Peer == identity.Unknown}
			switch pod := s.pods[c.Peer]; {
			case pod != nil:
				peer.pod, peer.addr = pod, pod.addr
				c = to(c, pod.addr)
			case c.Peer == identity.World:
				peer.entity = v1alpha1.PolicyEntityWorld
			case c.Peer == identity.RemoteNode || peer.own:
				peer.entity = v1alpha1.PolicyEntityNodes
			}
			want := s.oracle.verdict(connection{s.pods[c.Subject], peer, c.Dir, c.Proto, c.Port})
			_, got := k.begins(t, c)
			k.check(t, c, want, got, r, rows, s)
		}
	})
}

// The same while a mesh changes, with maps that keep what the last change left; and for flows that run on through it, which are judged
// anew only if the epochs say so, or their group or classes are others.
func TestDatapathFollowsChanges(t *testing.T) {
	fuzz(t, func(t *rapid.T) {
		s := newSequence(t, roomy)
		k := theKernel(t)
		k.beginSequence()
		var running []flowOf
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			s.change(t)
			s.step(t)
			k.install(t, s.kernel)
			// What the agent knows no labels of it knows no identity of.
			local := slices.DeleteFunc(slices.Sorted(maps.Keys(s.subjects)), func(id uint32) bool { return s.world.Identities[id] == nil })
			running = slices.DeleteFunc(running, func(f flowOf) bool {
				pod := identity.IsPod(f.Peer) && s.world.Identities[f.Peer] == nil
				return pod || !slices.Contains(local, f.Subject) || !k.runs(f)
			})
			for _, f := range running {
				got := k.goesOn(t, f)
				k.check(t, f.Connection, s.before.Evaluate(f.Connection).Verdict, got, s.before, s.kernel, nil)
				k.again++
			}
			if len(local) == 0 {
				continue
			}
			draw := random(t)
			peers := slices.Sorted(maps.Keys(s.world.Identities))
			for range packetsAScene / 2 {
				c := draw.connection(local, peers)
				if draw.IntN(2) == 0 { // an address that stays with the peer
					c = to(c, netip.MustParseAddr(genAddresses[c.Peer%uint32(len(genAddresses))]))
				}
				f, got := k.begins(t, c)
				k.check(t, c, s.before.Evaluate(c).Verdict, got, s.before, s.kernel, nil)
				if got.Verdict != Deny && len(running) < 64 {
					running = append(running, f)
				}
			}
		}
	})
}

const packetsAScene = 200

// source draws connections. Rapid draws only its seed: what matters for a failure is the scene.
type source struct{ *rand.Rand }

func random(t *rapid.T) source {
	return source{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "packets"), 0))} //nolint:gosec // no secret
}

func pick[T any](s source, from []T) T { return from[s.IntN(len(from))] }

// connection is a random one; mostly to ports that policies name, and their neighbours.
func (s source) connection(local, peers []uint32) Connection {
	c := Connection{Subject: pick(s, local), Dir: pick(s, []Direction{Ingress, Egress}), Proto: pick(s, []uint8{icmp.V4, protoTCP, protoTCP, protoUDP, protoSCTP})}
	c.Peer = pick(s, []uint32{identity.World, identity.RemoteNode, identity.Host, identity.Unknown})
	if len(peers) > 0 && s.IntN(3) > 0 {
		c.Peer = pick(s, peers)
	}
	c.Addr = netip.MustParseAddr(pick(s, genAddresses))
	if c.Proto == icmp.V4 { // a question: its flow has an entry
		c.Port = icmp.Port(pick(s, []uint8{8, 13}))
		return to(c, c.Addr)
	}
	c.Port = uint16(1 + s.IntN(65535))
	if s.IntN(4) > 0 {
		c.Port = uint16(max(1, min(65535, int(pick(s, genPorts))+s.IntN(3)-1)))
	}
	return c
}

// to is a connection with another address, and for ICMP with a question of that family.
func to(c Connection, addr netip.Addr) Connection {
	c.Addr = addr
	switch {
	case icmp.Is(c.Proto) && addr.Is6():
		c.Proto, c.Port = icmp.V6, icmp.Port(128)
	case c.Proto == icmp.V6:
		c.Proto, c.Port = icmp.V4, icmp.Port(8)
	}
	return c
}

// check compares what the programs said of a packet with what the others say.
func (k *realKernel) check(t *rapid.T, c Connection, want Verdict, got Decision, r *Reference, rows *kernel, s *scene) {
	reference, model := r.Evaluate(c), rows.decide(c)
	k.packets++
	k.verdicts[want]++
	if c.Peer == identity.Host && c.Dir == Ingress {
		model = judgement{Decision: reference} // the programs don't ask policy about it
	}
	if reference.Verdict == want && model.Verdict == want && got.Verdict == want && (got.Rule == unasked || got.Rule == model.Rule && got.Rule == reference.Rule) {
		return
	}
	text := ""
	if s != nil {
		text = fmt.Sprintf("\n%s of %s", s, describePod(s.pods[c.Subject]))
	}
	t.Fatalf("%+v: documentation %s; reference %s by rule %d; compiled rows %s by rule %d; programs %s by rule %d%s",
		c, want, reference.Verdict, reference.Rule, model.Verdict, model.Rule, got.Verdict, got.Rule, text)
}
