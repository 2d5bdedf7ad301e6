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

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// icmpTypes that connections have: those that policies name, and others.
var icmpTypes = []uint16{1, 9, 14, 129, 130, 140, 200, 256}

func TestNetworkPoliciesDecideAsTheirDocumentationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { compareWithOracle(t, genScene(t, true)) })
}

func TestAllKindsTogetherDecideAsTheirDocumentationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { compareWithOracle(t, genScene(t, false)) })
}

// compareWithOracle asks about many connections of every local pod.
func compareWithOracle(t *rapid.T, s *scene) {
	r := NewReference(&s.in)
	s.checkProblems(t, r)
	ports := []uint16{1, 79, 80, 81, 443, 8080, 8090, 65535, uint16(rapid.IntRange(1, 65535).Draw(t, "some port"))}
	for _, id := range slices.Sorted(maps.Keys(s.pods)) {
		if s.pods[id].cluster != "east" {
			continue
		}
		for _, peerID := range slices.Sorted(maps.Keys(s.pods)) {
			s.compare(t, r, id, peerID, oraclePeer{pod: s.pods[peerID], addr: s.pods[peerID].addr}, ports)
		}
		for _, text := range genAddresses {
			addr := netip.MustParseAddr(text)
			s.compare(t, r, id, identity.World, oraclePeer{addr: addr, entity: v1alpha1.PolicyEntityWorld}, ports)
			s.compare(t, r, id, identity.RemoteNode, oraclePeer{addr: addr, entity: v1alpha1.PolicyEntityNodes}, ports)
			s.compare(t, r, id, identity.Host, oraclePeer{addr: addr, entity: v1alpha1.PolicyEntityNodes, own: true}, ports)
			s.compare(t, r, id, identity.Unknown, oraclePeer{addr: addr, unknown: true}, ports)
		}
	}
}

// checkProblems: valid policies have none, but for those that select pods by a label which identities leave out. All whose
// subjects are selected so have one; a peer may be of a direction that the policy says nothing about.
func (s *scene) checkProblems(t *rapid.T, r *Reference) {
	for i, m := range s.in.Policies {
		for _, label := range leftOut {
			said := slices.ContainsFunc(r.Problems, func(p Problem) bool {
				return p.PolicyKey == m.key && strings.Contains(p.Message, "label "+label+" is not part of")
			})
			must, may := strings.Contains(s.oracle.policies[i].subjects(), label), strings.Contains(string(m.rec.Spec), label)
			if must && !said || said && !may {
				t.Fatalf("%s %s: that it asks for %s is reported: %t", m.key, m.rec.Spec, label, said)
			}
		}
	}
	for _, p := range r.Problems {
		later := strings.HasPrefix(p.PolicyKey, KindClusterNetworkPolicy) && p.Warning && strings.Contains(p.Message, "can't be enforced yet")
		later = later || p.Warning && strings.HasPrefix(p.PolicyKey, "Cilium")
		if !later && !slices.ContainsFunc(leftOut, func(label string) bool { return strings.Contains(p.Message, label) }) {
			t.Fatalf("valid policies have a problem: %v", p)
		}
	}
}

func (s *scene) compare(t *rapid.T, r *Reference, id, peerID uint32, peer oraclePeer, ports []uint16) {
	for _, dir := range []Direction{Ingress, Egress} {
		checkExplanation(t, r, Connection{id, peerID, peer.addr, dir, protoTCP, 80})
		for _, proto := range []uint8{icmp.V4, icmp.V6, protoTCP, protoUDP, protoSCTP} {
			of := ports
			if icmp.Is(proto) {
				of = icmpTypes
			}
			for _, port := range of {
				c := connection{s.pods[id], peer, dir, proto, port}
				want := s.oracle.verdict(c)
				got := r.Evaluate(Connection{id, peerID, peer.addr, dir, proto, port})
				if len(r.Problems) > 0 && got.Passes() && s.oracle.seeingAll().verdict(c) == Deny {
					t.Fatalf("%s of %s with %s passes, and whoever sees the labels that identities leave out denies it\n%s", dir, describePod(s.pods[id]), identity.Name(peerID), s)
				}
				if got.Verdict != want {
					t.Fatalf("%s %s of %s with %s (%v) protocol %d port %d: %s by %q, want %s\n%s", dir, identity.Name(id), describePod(s.pods[id]),
						identity.Name(peerID), peer.addr, proto, port, got.Verdict, r.Rules[got.Rule].Text, want, s)
				}
				unclear := peer.unknown && got.Rule == 0 // a pass that may mean somebody
				if rule, ok := r.Rules[got.Rule]; got.Verdict != Allow && !unclear && (!ok || rule.PolicyKey == "") {
					t.Fatalf("a denial is blamed on nobody: %+v", got)
				}
			}
		}
	}
}

// checkExplanation compares what explains a verdict with the verdict.
func checkExplanation(t *rapid.T, r *Reference, c Connection) {
	got, why := r.Evaluate(c), r.Explain(c)
	if why.Decision != got || why.Rule == nil && got.Rule != 0 || why.Rule != nil && why.Rule.ID != got.Rule {
		t.Fatalf("%+v is explained by %+v", got, why)
	}
	isolates := slices.ContainsFunc(why.Isolation, func(r Rule) bool { return r.ID == got.Rule })
	if why.Rule != nil && !isolates && (len(why.Matches) == 0 || why.Matches[0].Rule.ID != got.Rule) {
		t.Fatalf("%+v is explained by %+v", got, why)
	}
}

func (s *scene) String() string {
	var b strings.Builder
	for _, p := range s.in.Policies {
		fmt.Fprintf(&b, "%s %s %+v\n", p.Key(), p.rec.Spec, p.rec.Mode)
	}
	return b.String()
}

func describePod(p *oraclePod) string {
	return fmt.Sprintf("%s/%s %v %v", p.cluster, p.namespace, p.labels, p.named)
}
