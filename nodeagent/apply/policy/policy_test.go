// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func closed(bpf.Direction) bpf.Subject {
	return bpf.Subject{Flags: bpf.SubjectIsolated, Group: 4711, DefaultRule: 99}
}

// node is an agent over a kernel that survives it.
type node struct {
	t       rapid.TB
	kernel  *kernel
	tables  *table.Tables
	loop    *apply.Loop
	sw      *Switch
	planner *planner
	to      *Publisher
	now     time.Time

	// What the world is, and what it was since everything was last in force.
	pods     []labels
	policies []policies
	planned  [2]int // how long the two were when they were last planned
}

func newNode(t rapid.TB) *node {
	n := &node{t: t, kernel: newKernel(), now: time.Unix(0, 0), pods: []labels{{}}, policies: []policies{{}}}
	n.start()
	return n
}

// start forgets everything but the kernel and the world.
func (n *node) start() {
	tables := table.New()
	n.tables, n.planner, n.to, n.planned = tables, nil, nil, [2]int{}
	n.kernel.faults.life = -1
	before, sw := New(tables, n.kernel.driver(), closed)
	n.sw, n.loop = sw, apply.NewLoop(tables, append(before, sw)...)
}

// plan begins the change to the world as it is, unless another one is under way.
func (n *node) plan() {
	if n.planner == nil && !n.remember() {
		return
	}
	if n.to.Ready() {
		n.planned = [2]int{len(n.pods), len(n.policies)}
		n.to.Publish(n.planner.plan(n.pods[len(n.pods)-1], n.policies[len(n.policies)-1]))
	}
}

func (n *node) remember() bool {
	refuse := n.kernel.faults.refuse
	n.kernel.faults.refuse = func() bool { return false }
	defer func() { n.kernel.faults.refuse = refuse }()
	memory, err := Remember(context.Background(), n.kernel.driver())
	if err != nil {
		return false // killed
	}
	n.planner = newPlanner(memory)
	n.to = NewPublisher(n.tables, n.sw, memory)
	return true
}

func (n *node) pass() {
	n.t.Helper()
	if n.to != nil {
		n.to.Step()
	}
	n.loop.Pass(context.Background(), n.now, func(string) bool { return n.planner != nil })
	n.now = n.now.Add(time.Minute)
	if n.to == nil {
		return
	}
	n.to.Step()
	if n.to.Ready() && len(n.sw.reasons) == 0 && n.planned[0] > 0 {
		n.pods, n.policies = n.pods[n.planned[0]-1:], n.policies[n.planned[1]-1:]
		n.planned = [2]int{1, 1}
	}
}

var (
	subjects = []uint32{300, 301}
	peers    = []uint32{400, 401, 402}
	addrs    = []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.2.2.3"), netip.MustParseAddr("192.0.2.1")}
)

func packets() (out []packet) {
	for _, subject := range subjects {
		for _, port := range []uint16{80, 443} {
			for _, peer := range peers {
				out = append(out, packet{subject: subject, peer: peer, port: port})
			}
			for _, addr := range addrs {
				out = append(out, packet{subject: subject, addr: addr, port: port})
			}
		}
	}
	return out
}

// couldAllow says whether any state of the world since everything was last in force allows the packet.
func (n *node) couldAllow(p packet) bool {
	for _, pods := range n.pods {
		for _, all := range n.policies {
			_, known := all[p.subject]
			_, peer := pods[p.peer]
			if known && (peer || p.addr.IsValid()) && allows(pods, all, p) {
				return true
			}
		}
	}
	return false
}

func (n *node) mustNotOpen() {
	for _, p := range packets() {
		if n.kernel.allows(p) && !n.couldAllow(p) {
			n.t.Fatalf("%+v passes, which neither the old policy allows nor the new one\nmaps: %s\npods %v\npolicies %v",
				p, n.kernel, n.pods, n.policies)
		}
	}
}

func (k *kernel) String() string {
	var lines []string
	add := func(kind string, key, value any) {
		lines = append(lines, fmt.Sprintf("%s %s: %s", kind, table.Format(key), table.Format(value)))
	}
	for key, row := range k.subjects.rows {
		add(fmt.Sprintf("bank %d", key.Bank), key, row)
	}
	for key, row := range k.groups.rows {
		add("group", key, row)
	}
	for key, row := range k.members.rows {
		add("identity", key, row)
	}
	for key, row := range k.classes.rows {
		add("class", key, row)
	}
	for key, row := range k.blocks.rows {
		add("block", key, row)
	}
	slices.Sort(lines)
	return fmt.Sprintf("epoch %d\n%s", k.policy, strings.Join(lines, "\n"))
}

// mustBe compares every verdict and every row with what is wanted.
func (n *node) mustBe() {
	pods, all := n.pods[len(n.pods)-1], n.policies[len(n.policies)-1]
	for _, p := range packets() {
		_, known := all[p.subject]
		_, peer := pods[p.peer]
		want := known && (peer || p.addr.IsValid()) && allows(pods, all, p)
		if got := n.kernel.allows(p); got != want {
			n.t.Fatalf("%+v: allowed %t, want %t\nmaps: %s\npods %v\npolicies %v", p, got, want, n.kernel, pods, all)
		}
	}
	rows := n.planner.rows
	inBanks := map[bpf.SubjectKey]bpf.Subject{}
	for key, row := range rows.subjects {
		for key.Bank = range uint8(2) {
			inBanks[key] = row
		}
	}
	same(n.t, "sets", n.kernel.sets.rows, rows.sets)
	same(n.t, "classes", n.kernel.classes.rows, rows.classes)
	same(n.t, "members", n.kernel.members.rows, rows.members)
	same(n.t, "groups", n.kernel.groups.rows, rows.groups)
	same(n.t, "subjects", n.kernel.subjects.rows, inBanks)
	same(n.t, "blocks", n.kernel.blocks.rows, rows.blocks)
}

func same[K, V comparable](t rapid.TB, what string, got, want map[K]V) {
	if !maps.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func drawRule(t *rapid.T) rule {
	return rule{
		selector: rapid.IntRange(everybody, narrow).Draw(t, "selector"),
		port:     rapid.SampledFrom([]uint16{0, 80, 443}).Draw(t, "port"),
		deny:     rapid.Bool().Draw(t, "deny"),
	}
}

func drawPolicies(t *rapid.T) policies {
	return rapid.MapOfN(rapid.SampledFrom(subjects), rapid.Custom(func(t *rapid.T) subjectPolicy {
		return subjectPolicy{
			isolated: rapid.Bool().Draw(t, "isolated"),
			rules:    rapid.SliceOfN(rapid.Custom(drawRule), 0, 3).Draw(t, "rules"),
		}
	}), 0, len(subjects)).Draw(t, "policies")
}

func drawLabels(t *rapid.T) labels {
	return rapid.MapOfN(rapid.SampledFrom(peers), rapid.Map(rapid.IntRange(0, 7), func(i int) uint8 { return uint8(i << 1) }),
		0, len(peers)).Draw(t, "pods")
}

// Whatever changes, is refused, does not fit, and wherever the agent is killed: after each single operation no packet
// passes that neither the old policy allows nor the new one. In the end the maps hold what is wanted and nothing else.
func TestNothingOpensOnTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(t)
		n.kernel.faults.after = n.mustNotOpen
		rate := rapid.SampledFrom([]int{1, 3, 12}).Draw(t, "rate")
		refusals := rapid.SliceOfN(rapid.IntRange(0, rate), 1, 60).Draw(t, "refusals")
		calls, broken := 0, rapid.Bool().Draw(t, "refusing")
		n.kernel.faults.refuse = func() bool {
			calls++
			return broken && refusals[calls%len(refusals)] == 0
		}
		size := func(name string) int { return rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(t, name) }
		n.kernel.groups.size, n.kernel.members.size = size("groups"), size("members")
		n.kernel.subjects.size, n.kernel.blocks.size = size("subjects"), size("blocks")
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0, 6:
				n.policies = append(n.policies, drawPolicies(t))
			case 1:
				n.pods = append(n.pods, drawLabels(t))
			case 2:
				n.kernel.faults.life = rapid.IntRange(0, 20).Draw(t, "life")
				n.plan()
				n.pass()
				n.start()
			case 3:
				n.loop.Resync()
			case 4:
				n.pass()
			default:
				n.plan()
				n.pass()
			}
		}
		broken = false
		n.kernel.groups.size, n.kernel.members.size, n.kernel.subjects.size, n.kernel.blocks.size = 0, 0, 0, 0
		for range 12 {
			n.plan()
			n.pass()
		}
		n.mustBe()
	})
}

// Where nothing is refused a change is seen as a whole: each verdict is the old one or the new one after each operation,
// and all subjects change at the same operation.
func TestAPolicyIsSeenAsAWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(t)
		n.pods = append(n.pods, drawLabels(t))
		n.policies = append(n.policies, policies{300: {}, 301: {}})
		n.plan()
		n.untilReady()
		before := n.verdicts()
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			next := drawPolicies(t)
			for _, subject := range subjects { // who comes or goes is not what this is about
				if _, has := next[subject]; !has {
					next[subject] = subjectPolicy{}
				}
			}
			n.policies = append(n.policies, next)
			n.plan()
			var seen []map[packet]bool
			var maps_ []string
			n.kernel.faults.after = func() {
				if now := n.verdicts(); len(seen) == 0 || !maps.Equal(now, seen[len(seen)-1]) {
					seen = append(seen, now)
					maps_ = append(maps_, n.kernel.String())
				}
			}
			n.untilReady()
			n.kernel.faults.after = func() {}
			after := n.verdicts()
			for i, s := range seen {
				if !maps.Equal(s, before) && !maps.Equal(s, after) {
					t.Fatalf("a mixture is seen in %s", maps_[i])
				}
			}
			n.mustBe()
			before = after
		}
	})
}

// Until a new agent has planned, what the former one put in force stays.
func TestARestartKeepsThePolicyInForce(t *testing.T) {
	n := newNode(t)
	n.pods = append(n.pods, labels{400: 1 << label1})
	n.policies = append(n.policies, policies{300: {isolated: true, rules: []rule{{selector: label1}}}, 301: {}})
	n.plan()
	n.untilReady()
	want := n.verdicts()
	n.kernel.faults.after = func() {
		if got := n.verdicts(); !maps.Equal(got, want) {
			t.Fatalf("verdicts changed: %v, want %v", got, want)
		}
	}
	n.start()
	n.pass()
	n.pass()
	n.plan()
	n.untilReady()
	n.mustBe()
}

func (n *node) untilReady() {
	for i := 0; !n.to.Ready(); i++ {
		if i > 5 {
			n.t.Fatal("a change is not in force after five passes")
		}
		n.pass()
	}
}

func (n *node) verdicts() map[packet]bool {
	out := map[packet]bool{}
	for _, p := range packets() {
		out[p] = n.kernel.allows(p)
	}
	return out
}
