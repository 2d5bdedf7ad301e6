// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
)

// swapped is a policy for both directions that takes its turn with another: its sets, classes and groups are its own.
type swapped struct {
	set, class  uint32
	rule        uint32
	onlyEgress  uint16 // ports that only this policy allows
	onlyIngress uint16
}

const (
	alwaysPort = 80
	neverPort  = 81
	swaps      = 40
	// A scan takes microseconds, so that swaps often fall into one.
	fillerChunks = 400
)

var swapPolicies = [2]swapped{
	{set: 10, class: 20, rule: 100, onlyEgress: 91, onlyIngress: 92},
	{set: 70, class: 21, rule: 200, onlyEgress: 92, onlyIngress: 91},
}

func (p swapped) allows(dir Direction, port uint16) bool {
	return port == alwaysPort || dir == DirEgress && port == p.onlyEgress || dir == DirIngress && port == p.onlyIngress
}

// swapper changes the policy as the agent does.
type swapper struct {
	*fixture
	groups map[uint32][]uint32 // by epoch
	// The policy in force is swapPolicies[turns/2&1]; an odd number of turns means that it is changing.
	turns atomic.Uint64
}

// write puts a policy into the bank of an epoch. The peer's class changes before the epoch does, so it is in the sets of
// both policies. The group has its allowing lines in the last chunk.
func (s *swapper) write(epoch uint32, p swapped) {
	s.class(friendIdentity, p.class, uint16(swapPolicies[0].set), uint16(swapPolicies[1].set))
	for _, dir := range []Direction{DirEgress, DirIngress} {
		lines := []PolicyLine{{Set: uint16(p.set), Proto: 6, PortFrom: neverPort, PortTo: neverPort, Verdict: VerdictDeny, RuleID: p.rule}}
		for range fillerChunks * GroupLines {
			lines = append(lines, PolicyLine{Set: 2047, Verdict: VerdictAllow, RuleID: p.rule + 9})
		}
		for _, port := range []uint16{alwaysPort, 91, 92} {
			if p.allows(dir, port) {
				lines = append(lines, PolicyLine{Set: uint16(p.set), Proto: 6, PortFrom: port, PortTo: port, Verdict: VerdictAllow, RuleID: p.rule + 1})
			}
		}
		row := Subject{Flags: SubjectIsolated, Group: s.group(lines), Lines: uint32(len(lines)), DefaultRule: p.rule + 2}
		s.groups[epoch] = append(s.groups[epoch], row.Group)
		s.must(s.maps.Subjects.Put(&SubjectKey{Identity: podIdentity, Dir: dir, Bank: uint8(epoch & 1)}, &row))
	}
}

// swap puts the next policy in force and removes the last one behind a fence.
func (s *swapper) swap(p swapped) {
	old := s.cfg.PolicyEpoch
	s.write(old+1, p)
	s.turns.Add(1)
	s.bumpEpoch()
	s.turns.Add(1)
	s.must(s.maps.Fence())
	s.class(friendIdentity, p.class, uint16(p.set))
	for _, g := range s.groups[old] {
		for chunk := range uint32(fillerChunks + 1) {
			chunk = fillerChunks - chunk // a scan that is under way meets the last one last
			s.must(s.maps.Groups.Delete(&GroupKey{Group: g, Chunk: chunk}))
		}
	}
	for _, dir := range []Direction{DirEgress, DirIngress} {
		s.must(s.maps.Subjects.Delete(&SubjectKey{Identity: podIdentity, Dir: dir, Bank: uint8(old & 1)}))
	}
}

// A flood runs while two policies take turns, for both directions of the pod at once: every packet meets one of them
// whole, and the one in force where no swap was under way.
func TestSwapUnderAFlood(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		s := &swapper{fixture: f, groups: map[uint32][]uint32{}}
		s.write(s.cfg.PolicyEpoch, swapPolicies[0])

		var flood sync.WaitGroup
		done := make(chan struct{})
		for _, dir := range []Direction{DirEgress, DirIngress} {
			packets := s.packets(c, dir)
			flood.Go(func() { s.flood(dir, packets, done) })
		}
		for n := range swaps {
			s.swap(swapPolicies[(n+1)%2])
		}
		close(done)
		flood.Wait()
		if got := f.metrics(); got[MetricIndex(ReasonNoPolicy, HookPodEgress)]+got[MetricIndex(ReasonNoPolicy, HookPodIngress)] != 0 {
			t.Errorf("packets met a policy that was half there: %v", got)
		}
	})
}

// flooded is a packet of the flood.
type flooded struct {
	port uint16
	data []byte
}

// packets are those of one direction: for each port many new flows and one that goes on, with a SYN that is sent again and
// again, since a policy that denies it at first leaves no entry to go on with.
func (s *swapper) packets(c cast, dir Direction) []flooded {
	from, to := c.pod, c.friend
	if dir == DirIngress {
		from, to = to, from
	}
	var out []flooded
	for n := range uint16(100) {
		for _, port := range []uint16{alwaysPort, neverPort, 91, 92} {
			out = append(out,
				flooded{port, tcp(from, 5000+n, to, port, "S").bytes(s.t)},
				flooded{port, tcp(from, 3999, to, port, "S").bytes(s.t)})
		}
	}
	return out
}

// flood sends packets until the swaps are over.
func (s *swapper) flood(dir Direction, packets []flooded, done <-chan struct{}) {
	prog := s.progs.PodEgress
	if dir == DirIngress {
		prog = s.progs.PodIngress
	}
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		default:
		}
		if err := s.check(prog, packets[n%len(packets)], dir); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// check sends a packet and compares its fate with the policies that were in force meanwhile.
func (s *swapper) check(prog *ebpf.Program, p flooded, dir Direction) error {
	before := s.turns.Load()
	action, err := prog.Run(&ebpf.RunOptions{Data: p.data, Context: skb{Ifindex: podIfindex}})
	if err != nil {
		return fmt.Errorf("run %s: %w", prog, err)
	}
	after := s.turns.Load()
	passed := int32(action) != tcActDrop
	settled := before == after && before%2 == 0
	switch {
	case p.port == alwaysPort && !passed, p.port == neverPort && passed,
		settled && passed != swapPolicies[before/2%2].allows(dir, p.port):
		return fmt.Errorf("%s to port %d: passed %t in turns %d to %d", dir, p.port, passed, before, after)
	}
	return nil
}
