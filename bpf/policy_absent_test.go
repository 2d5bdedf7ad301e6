// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever row of the policy is missing, a flow is dropped, new or running, and passes as soon as the row is there.
func TestAbsentRowsClose(t *testing.T) {
	subject := &SubjectKey{Identity: podIdentity, Dir: DirEgress}
	for _, tc := range []struct {
		what         string
		remove, mend func(f *fixture)
	}{
		{"subject", func(f *fixture) {
			subject.Bank = uint8(f.cfg.PolicyEpoch & 1)
			f.must(f.maps.Subjects.Delete(subject))
		}, func(f *fixture) { f.publish(podIdentity, DirEgress) }},
		{"identity", func(f *fixture) { f.must(f.maps.Identities.Delete(uint32(friendIdentity))) },
			func(f *fixture) { f.class(friendIdentity, 2, 2) }},
		{"class", func(f *fixture) {
			beyond := IdentityClass{Class: f.maps.Classes.MaxEntries()}
			f.must(f.maps.Identities.Put(uint32(friendIdentity), &beyond))
		}, func(f *fixture) { f.class(friendIdentity, 2, 2) }},
		{"first chunk", func(f *fixture) { f.must(f.maps.Groups.Delete(&GroupKey{Group: f.lastGroup})) },
			func(f *fixture) { f.publish(podIdentity, DirEgress) }},
		{"second chunk", func(f *fixture) { f.must(f.maps.Groups.Delete(&GroupKey{Group: f.lastGroup, Chunk: 1})) },
			func(f *fixture) { f.publish(podIdentity, DirEgress) }},
	} {
		t.Run(tc.what, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f *fixture, c cast) {
				// Not isolated: nothing but the missing row can drop.
				for range GroupLines {
					f.policies[DirEgress].lines = append(f.policies[DirEgress].lines, line{peer: blockIdentity, rule: 1})
				}
				f.rule(DirEgress, line{peer: friendIdentity, verdict: VerdictAllow, rule: 2})
				running := tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)
				f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)).passes(t, "opens", HookPodEgress, ReasonForwarded)
				f.events()

				f.judgeAllAnew()
				tc.remove(f)
				for range 2 { // the second time too: it isn't remembered as anything else
					f.egress(tcp(c.pod, 4001, c.friend, 80, "S").bytes(t)).drops(t, "new", HookPodEgress, ReasonNoPolicy)
					f.egress(running).drops(t, "running", HookPodEgress, ReasonNoPolicy)
				}
				if e := f.events(); len(e) == 0 || e[0].Reason != ReasonNoPolicy || e[0].RuleID != 0 {
					t.Errorf("events = %+v, want one of no policy and no rule", e)
				}
				tc.mend(f)
				f.egress(tcp(c.pod, 4001, c.friend, 80, "S").bytes(t)).passes(t, "new, mended", HookPodEgress, ReasonForwarded)
				f.egress(running).passes(t, "running, mended", HookPodEgress, ReasonForwarded)
			})
		})
	}
}

// What the node sends needs no policy's rows; what it is sent does, and services do, as what they lead to.
func TestWhatTheNodeSendsNeedsNoRows(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		for bank := range uint8(2) {
			f.must(f.maps.Subjects.Delete(&SubjectKey{Identity: podIdentity, Dir: DirEgress, Bank: bank}))
		}
		for _, id := range []uint32{IdentityHost, IdentityWorld} {
			f.must(f.maps.Identities.Delete(id))
		}
		f.ingress(tcp(c.host, 4000, c.pod, 8080, "S").bytes(t)).passes(t, "the node's probe", HookPodIngress, ReasonHost)
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).drops(t, "to the node", HookPodEgress, ReasonNoPolicy)
		f.egress(udp(c.pod, 4000, c.service, 53).bytes(t)).drops(t, "service address", HookPodEgress, ReasonNoPolicy)
		f.egress(udp(c.pod, 4000, c.world, 53).bytes(t)).drops(t, "world", HookPodEgress, ReasonNoPolicy)
	})
}

// smallDatapath has room for one row of each kind that the agent writes, and for two of what packets write.
func smallDatapath(t *testing.T) *fixture {
	t.Helper()
	m, _, _, err := OpenMaps("", map[string]uint32{
		MapIfaces: 1, MapLocals4: 1, MapSubjects: 1, MapGroups: 1, MapIdentities: 1, MapClasses: 2, MapIpcache4: 2,
		MapCT4: 2, MapDenied: 2, MapFrags: 2, MapEventSeen: 2, MapRuleStats: 2, MapCT6: 2, MapSockRev: 2, MapAffinity: 2,
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(m.Close)
	p, err := LoadPrograms(m)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(p.Close)
	tunnel, err := loadTunnelForTest(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tunnel.Close() })
	f := &fixture{t: t, maps: m, progs: p, tunnel: tunnel, baseline: map[uint32]uint64{}}
	f.configure(Config{PolicyEpoch: firstEpoch, TunnelIfindex: tunnelIfindex})
	f.must(m.Ifaces.Put(uint32(podIfindex), &Iface{Identity: podIdentity, Flags: IfaceIP4, IP4: cast4.pod.As4()}))
	f.address(cast4.friend, Remote{Identity: friendIdentity})
	f.class(friendIdentity, 1, 2)
	f.group([]PolicyLine{{Set: 2, Verdict: VerdictAllow, RuleID: 1}})
	f.must(m.Subjects.Put(&smallSubject, &Subject{Group: f.lastGroup, Lines: 1}))
	return f
}

var smallSubject = SubjectKey{Identity: podIdentity, Dir: DirEgress, Bank: firstEpoch & 1}

// A map that is full refuses the write, and the pod whose row it was gets nothing through, whichever map it is.
func TestFullMapsClose(t *testing.T) {
	f, c := smallDatapath(t), cast4
	m := f.maps
	sport := uint16(4000)
	syn := func() []byte { sport++; return tcp(c.pod, sport, c.friend, 80, "S").bytes(t) }
	f.egress(syn()).passes(t, "with all rows", HookPodEgress, ReasonForwarded)

	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.E2BIG) {
			t.Errorf("%s: %v, want no room", what, err)
		}
	}
	other := SubjectKey{Identity: 7, Dir: DirEgress, Bank: smallSubject.Bank}
	var subject Subject
	f.must(m.Subjects.Lookup(&smallSubject, &subject))
	f.must(m.Subjects.Delete(&smallSubject))
	f.must(m.Subjects.Put(&other, &subject))
	refused("subject", m.Subjects.Put(&smallSubject, &subject))
	f.egress(syn()).drops(t, "no room for the subject", HookPodEgress, ReasonNoPolicy)
	f.must(m.Subjects.Delete(&other))
	f.must(m.Subjects.Put(&smallSubject, &subject))

	f.must(m.Identities.Delete(uint32(friendIdentity)))
	f.must(m.Identities.Put(uint32(7), &IdentityClass{Class: 1}))
	refused("identity", m.Identities.Put(uint32(friendIdentity), &IdentityClass{Class: 1}))
	f.egress(syn()).drops(t, "no room for the identity", HookPodEgress, ReasonNoPolicy)
	f.must(m.Identities.Delete(uint32(7)))

	refused("class", m.Classes.Put(uint32(2), &ClassSets{}))
	f.must(m.Identities.Put(uint32(friendIdentity), &IdentityClass{Class: 2}))
	f.egress(syn()).drops(t, "no room for the class", HookPodEgress, ReasonNoPolicy)
	f.must(m.Identities.Put(uint32(friendIdentity), &IdentityClass{Class: 1}))
	f.egress(syn()).passes(t, "with all rows again", HookPodEgress, ReasonForwarded)

	refused("second chunk", m.Groups.Put(&GroupKey{Group: subject.Group, Chunk: 1}, &GroupChunk{}))
	longer := subject
	longer.Lines = GroupLines + 1
	f.must(m.Subjects.Put(&smallSubject, &longer))
	f.must(m.Groups.Put(&GroupKey{Group: subject.Group}, &GroupChunk{Line: [GroupLines]PolicyLine{}}))
	for i := range GroupLines { // lines of others, so that the scan goes on
		var chunk GroupChunk
		f.must(m.Groups.Lookup(&GroupKey{Group: subject.Group}, &chunk))
		chunk.Line[i] = PolicyLine{Set: 3, Verdict: VerdictAllow}
		f.must(m.Groups.Put(&GroupKey{Group: subject.Group}, &chunk))
	}
	f.egress(syn()).drops(t, "no room for the second chunk", HookPodEgress, ReasonNoPolicy)

	refused("interface", m.Ifaces.Put(uint32(podIfindex+1), &Iface{Identity: 7}))
	f.must(m.Ifaces.Delete(uint32(podIfindex)))
	f.egress(syn()).drops(t, "no room for the interface", HookPodEgress, ReasonNoEndpoint)

	f.address(c.remote, Remote{Identity: remoteIdentity})
	f.must(m.Locals4.Put(c.other.As4(), &Local{Ifindex: podIfindex}))
	refused("local pod", m.Locals4.Put(c.pod.As4(), &Local{Ifindex: podIfindex}))
	f.fromTunnel(tcp(c.remote, 4000, c.pod, 80, "S").bytes(t)).
		drops(t, "no room for the pod", HookTunnelIngress, ReasonNotLocal)
}

// Tables that packets fill push out the oldest. A flow that was pushed out is judged as its next packet looks, and what
// is denied stays denied.
func TestFullFlowTablesClose(t *testing.T) {
	f, c := smallDatapath(t), cast4
	for sport := range uint16(100) {
		f.egress(tcp(c.pod, 4000+sport, c.friend, 80, "S").bytes(t)).passes(t, "opens", HookPodEgress, ReasonForwarded)
	}
	// There is room for one subject, so none says that anybody may open a connection to the pod.
	f.ingress(tcp(c.friend, 80, c.pod, 4000, "SA").bytes(t)).
		drops(t, "the answer to a flow that was pushed out", HookPodIngress, ReasonNoPolicy)

	f.must(f.maps.Subjects.Put(&smallSubject, &Subject{Flags: SubjectIsolated, DefaultRule: defaultRule}))
	for dport := range uint16(100) {
		f.egress(tcp(c.pod, 5000, c.friend, dport, "S").bytes(t)).drops(t, "denied", HookPodEgress, ReasonDefaultDenied)
	}
}
