// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// The cast: a pod of this node, two peers that sets tell apart, an address of the mesh that nobody has (yet), and one in a
// range that a policy names.
const (
	podIdentity    = 300
	friendIdentity = 301
	foeIdentity    = 302
	blockIdentity  = identity.CIDRBit | 1
	podIfindex     = 1 // lo: PROG_TEST_RUN wants an interface that exists
)

var (
	podAddr    = netip.MustParseAddr("10.1.0.1")
	friendAddr = netip.MustParseAddr("10.1.0.2")
	foeAddr    = netip.MustParseAddr("10.1.0.3")
	nobodyAddr = netip.MustParseAddr("10.1.0.9")
	blockAddr  = netip.MustParseAddr("192.0.2.7")
)

func ptr[T any](v T) *T { return &v }

func line(set uint16, v bpf.Verdict) bpf.PolicyLine { return bpf.PolicyLine{Set: set, Verdict: v} }

// world is the agent's apply side over real maps.
type world struct {
	open   bool // no range closes the addresses of pods
	t      *testing.T
	d      *Datapath
	tables *table.Tables
	loop   *apply.Loop
	to     *policy.Publisher
	now    time.Time
	port   uint16
}

// attached is the target of hooks: it attaches nothing, and looks at the order.
type attached struct {
	Target[table.Hook, table.Attachment]
	w *world
}

func (a attached) Update(context.Context, []table.Hook, []table.Attachment) []error {
	epoch, _, err := a.w.d.Epochs()
	check(a.w.t, err)
	var row bpf.Subject
	key := bpf.SubjectKey{Identity: podIdentity, Dir: bpf.DirEgress, Bank: uint8(epoch & 1)}
	if err := a.w.d.maps.Subjects.Lookup(&key, &row); err != nil && a.w.d.Sizes()[bpf.MapSubjects] > 2 {
		a.w.t.Errorf("a pod's interface is attached before its subject is in force: %v", err)
	}
	return nil
}

func newWorld(t *testing.T, dir string, sizes map[string]uint32) *world {
	t.Helper()
	d, err := Open(Config{Dir: dir, Mode: TCX, Sizes: sizes})
	check(t, err)
	tables := table.New()
	w := &world{t: t, d: d, tables: tables, now: time.Unix(0, 0), port: 1024}
	closed := func(bpf.Direction) bpf.Subject { return bpf.Subject{Flags: bpf.SubjectIsolated, Group: 99} }
	before, sw := policy.New(tables, policy.Driver{
		Sets: d.Sets(), Classes: d.Classes(), Members: d.Members(), Blocks: d.Blocks(), Groups: d.Groups(), Subjects: d.Subjects(), Epochs: d,
	}, closed)
	r := routes.New(tables, routes.Driver{
		Peers: d.Peers(), Ranges: d.Ranges(), Guards: d.Guards(), Addresses: d.Addresses(), AddressEpochs: d.AddressEpochs(),
	}, routes.Removable{}, sw.RangesChanged)
	sw.Watch(r.Ranges, r.Addresses)
	steps := append(before, r.Guards, r.Peers, sw.Hold(r.Ranges), r.Addresses, sw)
	steps = append(steps, endpoints.Steps(tables, endpoints.Driver{
		Ifaces: d.Ifaces(), Locals: d.Locals(), Hooks: attached{d.Hooks(), w},
	}, nil)...)
	w.loop = apply.NewLoop(tables, steps...)
	w.to = policy.NewPublisher(tables, sw, policy.Memory{})
	return w
}

func (w *world) close() {
	check(w.t, w.d.Close())
}

// settle runs passes until nothing moves any more.
func (w *world) settle() {
	for range 6 {
		w.to.Step()
		w.loop.Pass(context.Background(), w.now, func(string) bool { return true })
		w.now = w.now.Add(time.Minute)
	}
}

// skb is the beginning of struct __sk_buff as PROG_TEST_RUN takes it.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex                                           uint32
	Rest                                                                        [37]uint32
}

const shot = 2 // TC_ACT_SHOT

// passes sends a TCP packet of the pod through its egress program.
func (w *world) passes(to netip.Addr, sport uint16, flags byte) bool {
	w.t.Helper()
	action, err := w.d.programs.PodEgress.Run(&ebpf.RunOptions{
		Data: tcp(podAddr, to, sport, flags), DataOut: make([]byte, 512), Context: skb{Ifindex: podIfindex}, Repeat: 1,
	})
	check(w.t, err)
	return action != shot
}

// connects tries a connection that no one has tried before.
func (w *world) connects(to netip.Addr) bool {
	w.port++
	return w.passes(to, w.port, 2) // SYN
}

func tcp(from, to netip.Addr, sport uint16, flags byte) []byte {
	b := make([]byte, 14+20+20)
	copy(b[6:], []byte{2, 0, 0, 0, 0, 1})
	b[12], b[13] = 0x08, 0x00
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	ip[6] = 0x40 // don't fragment
	binary.BigEndian.PutUint16(ip[2:], 40)
	copy(ip[12:], from.AsSlice())
	copy(ip[16:], to.AsSlice())
	l4 := ip[20:]
	binary.BigEndian.PutUint16(l4[0:], sport)
	binary.BigEndian.PutUint16(l4[2:], 80)
	l4[12], l4[13] = 0x50, flags
	return b
}

// groundwork is what doesn't change: who has which address, and the pod's interface.
func (w *world) groundwork() {
	plan, node := w.tables.ForPlan(), w.tables.ForNode()
	w.tables.Write(func(txn *table.Txn) {
		for addr, id := range map[netip.Addr]uint32{podAddr: podIdentity, friendAddr: friendIdentity, foeAddr: foeIdentity} {
			plan.Addresses.Put(txn, addr, bpf.Remote{Identity: id})
		}
		if !w.open {
			plan.Ranges.Put(txn, netip.MustParsePrefix("10.1.0.0/16"), bpf.Remote{})
		}
		node.Ifaces.Put(txn, podIfindex, bpf.Iface{Identity: podIdentity, Flags: bpf.IfaceIP4, IP4: podAddr.As4()})
	})
}

func (w *world) attach() {
	hooks := w.tables.ForNode().Hooks
	w.tables.Write(func(txn *table.Txn) {
		hooks.Put(txn, table.Hook{Role: table.RolePod, Ifindex: podIfindex}, table.Attachment{Name: "pod"})
	})
}

// first denies the foe and the block and allows the rest.
func first() policy.Change {
	set := func(bit uint) *bpf.ClassSets { return &bpf.ClassSets{Sets: [32]uint64{1 << bit}} }
	chunk := bpf.GroupChunk{}
	chunk.Line[0], chunk.Line[1], chunk.Line[2] = line(2, bpf.VerdictDeny), line(3, bpf.VerdictDeny), line(0, bpf.VerdictAllow)
	return policy.Change{
		Before: policy.Rows{
			Sets:    map[uint32]*uint64{1: ptr(uint64(11)), 2: ptr(uint64(12)), 3: ptr(uint64(13))},
			Classes: map[uint32]*bpf.ClassSets{1: set(1), 2: set(2), 3: set(3)},
			Members: map[uint32]*bpf.IdentityClass{
				friendIdentity: {Class: 1}, foeIdentity: {Class: 2}, podIdentity: {}, identity.World: {}, blockIdentity: {Class: 3},
			},
			Blocks: map[netip.Prefix]*uint32{netip.MustParsePrefix("192.0.2.0/24"): ptr(blockIdentity)},
			Groups: map[bpf.GroupKey]*bpf.GroupChunk{{Group: 7}: &chunk},
		},
		Switch: true,
		Subjects: map[bpf.SubjectKey]*bpf.Subject{
			{Identity: podIdentity, Dir: bpf.DirEgress}: {Group: 7, Lines: 3, Flags: bpf.SubjectBlocks}, {Identity: podIdentity, Dir: bpf.DirIngress}: {Group: 7, Lines: 3, Flags: bpf.SubjectBlocks},
		},
	}
}

// second allows the foe alone.
func second() policy.Change {
	chunk := bpf.GroupChunk{}
	chunk.Line[0] = line(2, bpf.VerdictAllow)
	row := bpf.Subject{Group: 8, Lines: 1, Flags: bpf.SubjectIsolated}
	return policy.Change{
		Before: policy.Rows{Groups: map[bpf.GroupKey]*bpf.GroupChunk{{Group: 8}: &chunk}},
		Switch: true,
		Subjects: map[bpf.SubjectKey]*bpf.Subject{
			{Identity: podIdentity, Dir: bpf.DirEgress}: &row, {Identity: podIdentity, Dir: bpf.DirIngress}: &row,
		},
		After: policy.Rows{Groups: map[bpf.GroupKey]*bpf.GroupChunk{{Group: 7}: nil}},
	}
}

// Each map in turn has room for too few rows, at the first write and at a change: whatever is refused, nothing passes that
// should not.
func TestNothingOpensWhenAMapIsFull(t *testing.T) {
	for _, full := range []struct {
		name  string
		rows  []uint32
		works uint32 // with so many rows everything fits; 0: never tried
		open  bool   // no range closes the addresses of pods, as beside a CNI that hands out any
	}{
		{bpf.MapSubjects, []uint32{1, 2, 3, 4}, 4, false},
		{bpf.MapIdentities, []uint32{1, 3, 5}, 5, false},
		{bpf.MapGroups, []uint32{1, 2}, 2, false},
		{bpf.MapCIDR4, []uint32{1, 2}, 2, false},
		{bpf.MapIpcache4, []uint32{1, 3}, 3, false},
		{bpf.MapIpcache4, []uint32{1, 2, 3}, 3, true},
		{bpf.MapIfaces, []uint32{1}, 1, false},
		{bpf.MapClasses, []uint32{2, 4}, 4, false},
		{bpf.MapCT4, []uint32{1, 64}, 64, false},
	} {
		for _, rows := range full.rows {
			t.Run(fmt.Sprintf("%s with %d, open %t", full.name, rows, full.open), func(t *testing.T) {
				node(t, func(t *testing.T, dir string) {
					sizes := maps.Clone(small)
					sizes[bpf.MapGroups], sizes[full.name] = 64, rows
					w := newWorld(t, dir, sizes)
					defer w.close()
					w.open = full.open
					w.closedUnlessMeant(rows >= full.works)
				})
			})
		}
	}
}

func (w *world) closedUnlessMeant(fits bool) {
	expect := func(when string, allowed ...netip.Addr) {
		w.t.Helper()
		may := map[netip.Addr]bool{}
		for _, a := range allowed {
			may[a] = true
		}
		for name, a := range map[string]netip.Addr{"friend": friendAddr, "foe": foeAddr, "nobody": nobodyAddr, "block": blockAddr} {
			got := w.connects(a)
			if w.open && name == "nobody" {
				continue // part of the world, as long as nobody has it
			}
			if got && !may[a] {
				w.t.Errorf("%s: a packet to the %s passes", when, name)
			}
			if fits && !got && may[a] {
				w.t.Errorf("%s: a packet to the %s is dropped though everything fits", when, name)
			}
		}
	}
	const running = 999 // the port of a connection that outlives the change
	expect("before anything is written")
	w.groundwork()
	w.settle()
	expect("before there is a policy")
	w.attach()
	w.to.Publish(first())
	w.settle()
	expect("under the first policy", friendAddr)
	if w.passes(friendAddr, running, 2) && !w.passes(friendAddr, running, 16) && fits {
		w.t.Error("a connection to the friend goes no further than its first packet")
	}
	w.to.Publish(second())
	w.settle()
	expect("under the second policy", foeAddr)
	if w.passes(friendAddr, running, 16) {
		w.t.Error("a running connection to the friend outlives the policy that allowed it")
	}
}
