// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

func TestNetworkPoliciesDecideAsTheirDocumentationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { compareWithOracle(t, genScene(t, true)) })
}

func TestAllKindsTogetherDecideAsTheirDocumentationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { compareWithOracle(t, genScene(t, false)) })
}

// compareWithOracle asks about many connections of every local pod.
func compareWithOracle(t *rapid.T, s *scene) {
	r := Compile(s.in)
	if len(r.Problems) > 0 {
		t.Fatalf("valid policies have problems: %v", r.Problems)
	}
	ports := []uint16{1, 79, 80, 81, 443, 8080, 8090, 65535, uint16(rapid.IntRange(1, 65535).Draw(t, "some port"))}
	for _, id := range slices.Sorted(maps.Keys(s.pods)) {
		if s.pods[id].cluster != "east" {
			continue
		}
		for _, peerID := range slices.Sorted(maps.Keys(s.pods)) {
			s.compare(t, r, id, peerID, oraclePeer{pod: s.pods[peerID]}, ports)
		}
		for _, text := range genAddresses {
			addr := netip.MustParseAddr(text)
			s.compare(t, r, id, identify(r, addr), oraclePeer{addr: addr}, ports)
		}
	}
	checkShape(t, r)
}

func (s *scene) compare(t *rapid.T, r *Result, id, peerID uint32, peer oraclePeer, ports []uint16) {
	for _, dir := range []Direction{Ingress, Egress} {
		checkExplanation(t, r, id, peerID, dir)
		for _, proto := range []uint8{1, protoTCP, protoUDP, protoSCTP} {
			for _, port := range ports {
				if proto == 1 {
					port = 0
				}
				want := s.oracle.verdict(connection{s.pods[id], peer, dir, proto, port})
				got := r.Evaluate(id, peerID, dir, proto, port)
				if got.Verdict != want {
					t.Fatalf("%s %s of %s with %s (%v) protocol %d port %d: %s by %q, want %s\n%s", dir, identity.Name(id), describePod(s.pods[id]),
						identity.Name(peerID), peer.addr, proto, port, got.Verdict, r.Rules[got.Rule].Text, want, s)
				}
				if rule, ok := r.Rules[got.Rule]; got.Verdict != Allow && (!ok || rule.PolicyKey == "") {
					t.Fatalf("a denial is blamed on nobody: %+v", got)
				}
			}
		}
	}
}

// checkExplanation compares what explains a verdict with the verdict.
func checkExplanation(t *rapid.T, r *Result, id, peerID uint32, dir Direction) {
	got, why := r.Evaluate(id, peerID, dir, protoTCP, 80), r.Explain(id, peerID, dir, protoTCP, 80)
	if why.Decision != got || (why.Rule == nil) != (got.Rule == 0) || (len(why.Matches) > 0 && why.Matches[0].Rule.ID != got.Rule) {
		t.Fatalf("%+v is explained by %+v", got, why)
	}
}

// checkShape checks what the datapath relies on.
func checkShape(t *rapid.T, r *Result) {
	for k, e := range r.Entries {
		s, ok := r.Subjects[SubjectKey{k.Subject, k.Dir}]
		if !ok {
			t.Fatalf("entry without subject: %+v", k)
		}
		if s.Prefixes[k.Kind()]&(1<<k.PortPrefix) == 0 || s.PortPrefixes&(1<<k.PortPrefix) == 0 {
			t.Fatalf("the subject does not announce the entry's prefix length: %+v %+v", s, k)
		}
		if k.Port != maskPort(k.Port, k.PortPrefix) {
			t.Fatalf("port is not masked: %+v", k)
		}
		if _, ok := r.Rules[e.Rule]; !ok || e.Rule == 0 {
			t.Fatalf("entry without rule: %+v %+v", k, e)
		}
	}
	for k, s := range r.Subjects {
		if s.Isolated != (s.DefaultRule != 0) || s.Isolated != (len(r.Isolation[k]) > 0) {
			t.Fatalf("isolation without a rule: %+v %+v", k, s)
		}
	}
	seen := map[uint32]netip.Prefix{}
	for p, id := range r.CIDRs {
		if other, twice := seen[id]; twice || !identity.IsCIDR(id) {
			t.Fatalf("%s and %s share identity %d, or it is none of a CIDR", p, other, id)
		}
		seen[id] = p
	}
}

// The order of policies, and compiling for some subjects only, must not matter.
func TestCompileIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genScene(t, false)
		r := Compile(s.in)
		shuffled := s.in
		shuffled.Policies = rapid.Permutation(s.in.Policies).Draw(t, "order")
		if again := Compile(shuffled); !reflect.DeepEqual(r, again) {
			t.Fatalf("another order of policies gives another result\n%s", s)
		}
		some := s.in
		some.Subjects = map[uint32]struct{}{}
		for id, p := range s.pods {
			if p.cluster == "east" && rapid.Bool().Draw(t, "subject") {
				some.Subjects[id] = struct{}{}
			}
		}
		part := Compile(some)
		if !reflect.DeepEqual(part.Rules, r.Rules) || !reflect.DeepEqual(part.CIDRs, r.CIDRs) {
			t.Fatalf("ids depend on which subjects are compiled")
		}
		for k, e := range r.Entries {
			_, wanted := some.Subjects[k.Subject]
			if got, ok := part.Entries[k]; ok != wanted || (ok && got != e) {
				t.Fatalf("entry %+v: %+v (wanted %t), was %+v", k, got, wanted, e)
			}
		}
	})
}

// CIDRs keep their identities while policies come and go, and nobody gets one that somebody else just had.
func TestCIDRsKeepTheirIdentities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genScene(t, false)
		before := Compile(s.in).CIDRs
		n := rapid.IntRange(0, len(s.in.Policies)).Draw(t, "removed")
		s.in.Policies = s.in.Policies[n:]
		s.in.PreviousCIDRs = before
		s.addPolicy(t, KindNetworkPolicy, 100)
		had := map[uint32]bool{}
		for _, id := range before {
			had[id] = true
		}
		for p, id := range Compile(s.in).CIDRs {
			old, known := before[p]
			if known && id != old {
				t.Fatalf("%s changed from %d to %d", p, old, id)
			}
			if !known && had[id] {
				t.Fatalf("%s got %d, which another CIDR had", p, id)
			}
		}
	})
}

func (s *scene) String() string {
	var b strings.Builder
	for _, p := range s.in.Policies {
		fmt.Fprintf(&b, "%s %s\n", Key(p), p.SpecJson)
	}
	return b.String()
}

func describePod(p *oraclePod) string {
	return fmt.Sprintf("%s/%s %v %v", p.cluster, p.namespace, p.labels, p.named)
}

func TestPortRangesAreSplitExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(1, 65535).Draw(t, "from")
		to := rapid.IntRange(from, 65535).Draw(t, "to")
		blocks := port{proto: protoTCP, from: uint16(from), to: uint16(to)}.prefixes(nil)
		if len(blocks) > 30 {
			t.Fatalf("%d-%d takes %d blocks", from, to, len(blocks))
		}
		for p := 1; p <= 65535; p++ {
			covered := 0
			for _, b := range blocks {
				if maskPort(uint16(p), b.bits) == b.value {
					covered++
				}
			}
			if want := p >= from && p <= to; (covered == 1) != want || covered > 1 {
				t.Fatalf("%d-%d: port %d is in %d blocks", from, to, p, covered)
			}
		}
	})
}
