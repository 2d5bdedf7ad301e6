// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// A policy that nobody pointed the epoch to is not in force, and it is from one packet to the next once somebody did.
func TestTheEpochChoosesTheBank(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		bank := func(n uint32) *SubjectKey {
			return &SubjectKey{Identity: podIdentity, Dir: DirEgress, Bank: uint8(n & 1)}
		}
		data := tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)
		f.egress(data).passes(t, "open", HookPodEgress, ReasonForwarded)
		f.must(f.maps.Subjects.Put(bank(firstEpoch+1), &Subject{Flags: SubjectIsolated, DefaultRule: defaultRule}))
		f.egress(data).passes(t, "running, the other bank written", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4001, c.friend, 80, "S").bytes(t)).
			passes(t, "new, the other bank written", HookPodEgress, ReasonForwarded)
		f.bumpEpoch()
		f.egress(data).drops(t, "running, in force", HookPodEgress, ReasonDefaultDenied)
		f.egress(tcp(c.pod, 4002, c.friend, 80, "S").bytes(t)).drops(t, "new, in force", HookPodEgress, ReasonDefaultDenied)
		f.bumpEpoch()
		f.egress(data).passes(t, "running, back again", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4002, c.friend, 80, "S").bytes(t)).passes(t, "new, back again", HookPodEgress, ReasonForwarded)
	})
}

// A flow is judged in full only if something changed for it. The test takes the group's lines away: a flow that is
// judged shows that by no-policy, one that isn't goes on with its rule.
func TestOnlyWhatChangedIsJudgedAgain(t *testing.T) {
	data := func(t *testing.T, c cast) []byte { return tcp(c.pod, 4000, c.friend, 80, "A").bytes(t) }
	for _, tc := range []struct {
		what   string
		change func(f *fixture, c cast)
		judged bool
	}{
		{"nothing", func(*fixture, cast) {}, false},
		{"the policy of others", func(f *fixture, _ cast) { f.bumpEpoch() }, false},
		{"the policy of others, twice", func(f *fixture, _ cast) { f.bumpEpoch(); f.bumpEpoch() }, false},
		{"another address", func(f *fixture, c cast) { f.raiseAddress(c.world); f.bumpEpoch() }, false},
		{"the peer's address", func(f *fixture, c cast) { f.raiseAddress(c.friend) }, true},
		{"the peer's class", func(f *fixture, _ cast) { f.class(friendIdentity, 100, 2); f.bumpEpoch() }, true},
		{"ranges", func(f *fixture, _ cast) { f.judgeAllAnew() }, true},
		{"the group", func(f *fixture, _ cast) { f.putSubject(Subject{Group: 4711, Lines: 1}); f.bumpEpoch() }, true},
		{"isolation", func(f *fixture, _ cast) {
			f.putSubject(Subject{Group: f.lastGroup, Lines: 1, Flags: SubjectIsolated})
			f.bumpEpoch()
		}, true},
		{"who is blamed, of an allowed flow", func(f *fixture, _ cast) {
			f.putSubject(Subject{Group: f.lastGroup, Lines: 1, DefaultRule: 99})
			f.bumpEpoch()
		}, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f *fixture, c cast) {
				f.rule(DirEgress, line{peer: friendIdentity, rule: 7})
				f.egress(data(t, c)).passes(t, "opens", HookPodEgress, ReasonForwarded)
				f.must(f.maps.Groups.Delete(&GroupKey{Group: f.lastGroup}))
				f.events()
				tc.change(f, c)
				r := f.egress(data(t, c))
				if tc.judged {
					r.drops(t, "judged", HookPodEgress, ReasonNoPolicy)
					return
				}
				r.passes(t, "not judged", HookPodEgress, ReasonForwarded)
				e, _ := f.flow(ctKey{c, c.friend, 4000, 80, 6})
				if e.Epoch != f.cfg.PolicyEpoch || e.RuleID != 7 {
					t.Errorf("flow = %+v, want this epoch and rule 7", e)
				}
				if got := f.events(); len(got) != 0 {
					t.Errorf("events = %+v, want none", got)
				}
			})
		})
	}
}

// putSubject writes the pod's egress row in both banks.
func (f *fixture) putSubject(row Subject) {
	f.t.Helper()
	for bank := range uint8(2) {
		f.must(f.maps.Subjects.Put(&SubjectKey{Identity: podIdentity, Dir: DirEgress, Bank: bank}, &row))
	}
}

// A flow that the default judged follows the default's rule, and says so once.
func TestFlowsOfTheDefaultFollowItsRule(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		data := tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)
		f.putSubject(Subject{Flags: SubjectIsolated | SubjectAudit, DefaultRule: 1})
		f.egress(data).passes(t, "audited", HookPodEgress, ReasonAudited)
		f.events()
		f.bumpEpoch()
		f.egress(data).passes(t, "audited", HookPodEgress, ReasonAudited)
		if e := f.events(); len(e) != 0 {
			t.Errorf("events = %+v, want none: nothing changed", e)
		}
		f.putSubject(Subject{Flags: SubjectIsolated | SubjectAudit, DefaultRule: 2})
		f.bumpEpoch()
		f.egress(data).passes(t, "audited by another rule", HookPodEgress, ReasonAudited)
		if e, _ := f.flow(ctKey{c, c.friend, 4000, 80, 6}); e.RuleID != 2 {
			t.Errorf("flow = %+v, want rule 2", e)
		}
	})
}

// The node is not policy's: its flows outlive any.
func TestFlowsWithoutPolicyOutliveIt(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).passes(t, "own node", HookPodEgress, ReasonHost)
		f.isolate(DirEgress, 0)
		f.bumpEpoch()
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).passes(t, "own node", HookPodEgress, ReasonHost)
		f.judgeAllAnew()
		f.egress(udp(c.pod, 4000, c.host, 53).bytes(t)).passes(t, "own node, judged", HookPodEgress, ReasonHost)
	})
}

// Epochs are serial numbers: the one after the largest is 0.
func TestEpochsWrap(t *testing.T) {
	f, c := newFixture(t), cast4
	data := tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)
	f.cfg.PolicyEpoch = 1<<32 - 1
	f.cfg.FullEpoch = 1<<32 - 1
	f.configure(f.cfg)
	f.rule(DirEgress, line{peer: friendIdentity, rule: 7})
	f.egress(data).passes(t, "opens", HookPodEgress, ReasonForwarded)
	f.must(f.maps.Groups.Delete(&GroupKey{Group: f.lastGroup}))
	f.bumpEpoch()
	f.egress(data).passes(t, "over the top, not judged", HookPodEgress, ReasonForwarded)
	f.judgeAllAnew()
	f.egress(data).drops(t, "judged", HookPodEgress, ReasonNoPolicy)
}

// A denial is remembered for the address's holder, not for the next one.
func TestRememberedDenialsEndWithTheAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: remoteIdentity, rule: 1})
		syn := tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)
		for range 2 {
			f.egress(syn).drops(t, "denied", HookPodEgress, ReasonDefaultDenied)
		}
		f.address(c.friend, Remote{Identity: remoteIdentity})
		f.egress(syn).passes(t, "somebody else's address now", HookPodEgress, ReasonForwarded)
	})
}

func TestPinnedEpoch(t *testing.T) {
	dir := bpffs(t)
	if got, err := PinnedEpoch(dir); got != 0 || err != nil {
		t.Errorf("nothing pinned: %d, %v", got, err)
	}
	m, _ := openMaps(t, dir, nil)
	if err := m.Config.Put(uint32(0), &Config{PolicyEpoch: 7, FullEpoch: 3}); err != nil {
		t.Fatal(err)
	}
	if err := m.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := PinnedEpoch(dir); got != 7 || err != nil {
		t.Errorf("this layout: %d, %v, want 7", got, err)
	}

	older, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer older.Close()
	if err := older.Put(uint32(0), append([]byte{9, 1}, make([]byte, 22)...)); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(dir, MapConfig)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	if err := older.Pin(pin); err != nil {
		t.Fatal(err)
	}
	if _, replaced := openMaps(t, dir, nil); !slices.Contains(replaced, MapConfig) {
		t.Errorf("replaced %v, want %s", replaced, MapConfig)
	}
	if got, err := PinnedEpoch(dir); got != 265 || err != nil {
		t.Errorf("an older layout, while its successor is being filled: %d, %v, want 265", got, err)
	}
}
