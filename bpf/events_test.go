// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEventsTellWhoWhatWhy(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirIngress, 0)
		f.rule(DirIngress, line{peer: remoteIdentity, proto: 6, from: 80, rule: 11})
		f.ingressFromTunnel(tcp(c.remote, 4000, c.pod, 80, "S").bytes(t))
		f.ingressFromTunnel(tcp(c.remote, 4000, c.pod, 80, "A").bytes(t)) // no event of its own
		f.ingressFromTunnel(tcp(c.remote, 4000, c.pod, 81, "S").bytes(t))

		got := f.events()
		if len(got) != 2 {
			t.Fatalf("%d events, want the new flow's and the drop's: %+v", len(got), got)
		}
		for i := range got {
			if got[i].TimeNs == 0 || got[i].Bytes == 0 {
				t.Errorf("event %d has no time or length: %+v", i, got[i])
			}
			got[i].TimeNs, got[i].Bytes = 0, 0
		}
		want := Event{
			Ifindex: podIfindex, SrcIdentity: remoteIdentity, DstIdentity: podIdentity, RuleID: 11,
			Epoch: firstEpoch, Count: 1, Saddr: wide(c.remote), Daddr: wide(c.pod), Sport: 4000, Dport: 80,
			Family: c.family, Proto: 6, Hook: HookPodIngress, Dir: DirIngress, Verdict: VerdictAllow,
			Reason: ReasonForwarded, TCPFlags: 2, Flags: EventNew | EventViaTunnel,
		}
		if got[0] != want {
			t.Errorf("new flow:\n got %+v\nwant %+v", got[0], want)
		}
		want.Dport, want.RuleID, want.Verdict, want.Reason = 81, defaultRule, VerdictDeny, ReasonDefaultDenied
		if got[1] != want {
			t.Errorf("drop:\n got %+v\nwant %+v", got[1], want)
		}
	})
}

// wide writes an address as events hold it.
func wide(a netip.Addr) (b [16]byte) {
	copy(b[:], a.AsSlice())
	return b
}

func TestEqualEventsAreFolded(t *testing.T) {
	f, c := newFixture(t), cast4
	f.isolate(DirEgress, 0)
	const packets = 50
	var told, last uint32
	for sport := range uint16(packets) {
		f.egress(tcp(c.pod, 4000+sport, c.friend, 80, "S").bytes(t))
	}
	for _, e := range f.events() {
		told += e.Count
	}
	if told >= packets {
		t.Errorf("%d of %d equal drops told at once", told, packets)
	}
	// The next tick's event stands for those that were folded.
	f.tickPasses(c.friend, 80)
	f.egress(tcp(c.pod, 3999, c.friend, 80, "S").bytes(t))
	for _, e := range f.events() {
		last += e.Count
	}
	if told+last != packets+1 {
		t.Errorf("events stand for %d packets, %d were dropped", told+last, packets+1)
	}
	if got := f.ruleCount(defaultRule, DirEgress, VerdictDeny); got != packets+1 {
		t.Errorf("rule counted %d drops, want %d: folding is for events only", got, packets+1)
	}
}

// tickPasses makes what was remembered about denials look one tick older.
func (f *fixture) tickPasses(peer netip.Addr, dport uint16) {
	f.t.Helper()
	dk := DeniedKey{Peer: wide(peer), Subject: podIdentity, Port: dport, Proto: 6, Dir: DirEgress}
	index, d := findRow(f, f.maps.Denied, func(d Denied) bool { return d.Key == dk })
	d.Tick--
	f.must(f.maps.Denied.Put(index, &d))
	sk := EventKey{Subject: podIdentity, Peer: d.Identity, Dport: dport, Proto: 6,
		Dir: DirEgress, Verdict: VerdictDeny, Reason: d.Reason}
	index, seen := findRow(f, f.maps.EventSeen, func(s EventSeen) bool { return s.Key == sk })
	seen.Tick--
	f.must(f.maps.EventSeen.Put(index, &seen))
}

// A row that two CPUs wrote at once, half and half, denies nobody.
func TestTornDenialsAreNotBelieved(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		syn := tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)
		f.egress(syn).drops(t, "denied", HookPodEgress, ReasonDefaultDenied)
		index, d := findRow(f, f.maps.Denied, func(d Denied) bool { return d.Tick != 0 })
		f.rule(DirEgress, line{peer: friendIdentity, rule: 1}) // at the same epoch
		whole := d
		for what, tear := range map[string]func(){
			"rule": func() { d.RuleID++ }, "identity": func() { d.Identity++ }, "reason": func() { d.Reason = ReasonPolicyDenied },
			"port": func() { d.Key.Port++ }, "subject": func() { d.Key.Subject++ },
		} {
			d = whole
			tear()
			f.must(f.maps.Denied.Put(index, &d))
			f.egress(syn).passes(t, what+" of another row", HookPodEgress, ReasonForwarded)
		}
	})
}

// A denial is remembered for a tick, but never past a change of policy.
func TestRememberedDenialsEndWithTheEpoch(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		syn := tcp(c.pod, 4000, c.friend, 80, "S").bytes(t)
		for range 3 {
			f.egress(syn).drops(t, "denied", HookPodEgress, ReasonDefaultDenied)
		}
		f.rule(DirEgress, line{peer: friendIdentity, rule: 1})
		f.bumpEpoch()
		f.egress(syn).passes(t, "allowed now", HookPodEgress, ReasonForwarded)
		if got := f.ruleCount(defaultRule, DirEgress, VerdictDeny); got != 3 {
			t.Errorf("rule counted %d drops, want 3", got)
		}
	})
}

// What can't be told now is told later: a full budget loses no count.
func TestUntoldEventsAreCarriedOn(t *testing.T) {
	f, c := newFixture(t), cast4
	f.isolate(DirEgress, 0)
	cfg := f.cfg
	cfg.EventsPerTick = 1
	f.configure(cfg)
	var budget []EventBudget
	f.must(f.maps.EventBudget.Lookup(uint32(0), &budget))
	for i := range budget { // spent, for this tick and the next
		budget[i] = EventBudget{Tick: monotonicTick(t), Sent: 1}
	}
	f.must(f.maps.EventBudget.Put(uint32(0), budget))
	f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t))
	told := len(f.events()) // 1 if the tick passed just now
	cfg.EventsPerTick = 0
	f.configure(cfg)
	f.tickPasses(c.friend, 80)
	f.egress(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t))
	var stood uint32
	for _, e := range f.events() {
		stood += e.Count
	}
	if int(stood)+told != 2 {
		t.Errorf("events stand for %d packets, 2 were dropped", int(stood)+told)
	}
}

func monotonicTick(t *testing.T) uint32 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		t.Fatal(err)
	}
	return uint32(ts.Nano() >> 30)
}

func TestEventBudget(t *testing.T) {
	f, c := newFixture(t), cast4
	cfg := f.cfg
	cfg.EventsPerTick = 5
	f.configure(cfg)
	start := time.Now()
	for dport := range uint16(400) {
		f.egress(tcp(c.pod, 4000, c.friend, 1+dport, "S").bytes(t))
	}
	// Any CPU may have run any packet, and each tick brings a new budget.
	ticks := int(time.Since(start)>>30) + 2
	cpus := len(f.perCPUBudget())
	if got := len(f.events()); got == 0 || got > 5*ticks*cpus {
		t.Errorf("%d events within %d ticks on %d CPUs, budget 5", got, ticks, cpus)
	}
}

func (f *fixture) perCPUBudget() []EventBudget {
	var b []EventBudget
	f.must(f.maps.EventBudget.Lookup(uint32(0), &b))
	return b
}

// Host probes come every few seconds to every pod: they are counted, not told.
func TestHostTrafficIsNotTold(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.ingress(tcp(c.host, 4000, c.pod, 80, "S").bytes(t)).passes(t, "probe", HookPodIngress, ReasonHost)
		if e := f.events(); len(e) != 0 {
			t.Errorf("events = %+v", e)
		}
	})
}
