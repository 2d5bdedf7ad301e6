// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

const (
	podIfindex   = 1 // loopback: PROG_TEST_RUN wants an interface that exists
	podIdentity  = 100
	firstPeer    = 1000 // identity of peer 0
	peerIndex    = 5
	slotNoop     = 0
	slotMeasured = 1
	manyFlows    = 1 << 16
	tcpSYN       = 0x02
	tcpACK       = 0x10
)

// row is one path through a hook.
type row struct {
	name    string
	toPod   bool
	ip6     bool
	tunnel  bool // the peers are behind the tunnel
	newFlow bool // each packet opens a flow
	denied  bool // policy denies it
	program func(*bpf.Programs) *ebpf.Program
	want    bpf.Reason // what every measured packet must be counted as
}

func egress(p *bpf.Programs) *ebpf.Program  { return p.PodEgress }
func ingress(p *bpf.Programs) *ebpf.Program { return p.PodIngress }

var packetRows = []row{
	{name: "pod egress, established", program: egress, want: bpf.ReasonForwarded},
	{name: "pod egress into the tunnel, established", program: egress, tunnel: true, want: bpf.ReasonTunneled},
	{name: "pod egress, new flow", program: egress, newFlow: true, want: bpf.ReasonForwarded},
	{name: "pod egress, denied", program: egress, newFlow: true, denied: true, want: bpf.ReasonDefaultDenied},
	{name: "pod ingress, established", program: ingress, toPod: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, new flow", program: ingress, toPod: true, newFlow: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, denied", program: ingress, toPod: true, newFlow: true, denied: true, want: bpf.ReasonDefaultDenied},
	{name: "pod egress, established, IPv6", program: egress, ip6: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, established, IPv6", program: ingress, toPod: true, ip6: true, want: bpf.ReasonForwarded},
}

// bench is a loaded datapath with the wrapper in front of one program.
type bench struct {
	row   row
	peers int
	maps  *bpf.Maps
	objs  benchObjects
	frame []byte
	next  uint64
}

func measureRow(r row, peers, rounds, repeat int) (one, many figure, err error) {
	maps, _, err := bpf.OpenMaps("", map[string]uint32{
		// A new flow must be new: its ports come around again after 64k
		// packets, when the table must have forgotten them.
		bpf.MapCT4: tableSize(r), bpf.MapCT6: tableSize(r),
	})
	if err != nil {
		return one, many, fmt.Errorf("creating maps: %w", err)
	}
	defer maps.Close()
	progs, err := bpf.LoadPrograms(maps)
	if err != nil {
		return one, many, fmt.Errorf("loading programs: %w", err)
	}
	defer progs.Close()
	b := &bench{row: r, peers: peers, maps: maps}
	if err := loadBenchObjects(&b.objs, nil); err != nil {
		return one, many, fmt.Errorf("loading the wrapper: %w", err)
	}
	defer b.objs.Close()
	if err := b.fill(r.program(progs)); err != nil {
		return one, many, err
	}
	if one, err = b.measure(1, rounds, repeat); err != nil {
		return one, many, err
	}
	many, err = b.measure(manyFlows, rounds, repeat)
	return one, many, err
}

func tableSize(r row) uint32 {
	if r.newFlow {
		return manyFlows / 4
	}
	return 2 * manyFlows
}

// peerAddr is the address that bench.bpf.c writes for a peer's number.
func (b *bench) peerAddr(i int) netip.Addr {
	if b.row.ip6 {
		a := netip.MustParseAddr("fd00:2::").As16()
		a[12], a[13], a[14], a[15] = byte(i>>24), byte(i>>16), byte(i>>8), byte(i)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)})
}

func (b *bench) podAddr() netip.Addr {
	if b.row.ip6 {
		return netip.MustParseAddr("fd00:1::10")
	}
	return netip.MustParseAddr("10.1.0.10")
}

// fill writes the endpoint, and for each peer an address and a policy entry.
func (b *bench) fill(measured *ebpf.Program) error {
	pod := b.podAddr()
	iface := &bpf.Iface{Identity: podIdentity, Flags: bpf.IfaceIP4}
	if pod.Is4() {
		iface.IP4 = pod.As4()
	} else {
		iface.IP6, iface.Flags = pod.As16(), bpf.IfaceIP6
	}
	dir := bpf.DirEgress
	if b.row.toPod {
		dir = bpf.DirIngress
	}
	subject := &bpf.Subject{Flags: bpf.SubjectIsolated, DefaultRule: 1}
	subject.Prefixes[bpf.KindPeerProto] = 1 << 16
	puts := []struct {
		m    *ebpf.Map
		k, v any
	}{
		{b.maps.Config, uint32(0), &bpf.Config{PolicyEpoch: 1, TunnelIfindex: podIfindex, TunnelMTU: 1420}},
		{b.maps.Peers, uint32(peerIndex), &bpf.Peer{Flags: bpf.PeerReady}},
		{b.maps.Ifaces, uint32(podIfindex), iface},
		{b.maps.Subjects, &bpf.SubjectKey{Identity: podIdentity, Dir: dir}, subject},
		{b.objs.BenchProgs, uint32(slotNoop), b.objs.FlBenchNoop},
		{b.objs.BenchProgs, uint32(slotMeasured), measured},
	}
	for _, p := range puts {
		if err := p.m.Put(p.k, p.v); err != nil {
			return fmt.Errorf("filling %s: %w", p.m, err)
		}
	}
	for i := range b.peers {
		if err := b.fillPeer(i, dir); err != nil {
			return fmt.Errorf("filling in peer %d: %w", i, err)
		}
	}
	b.frame = frame(b.row, b.podAddr(), b.peerAddr(0))
	return nil
}

func (b *bench) fillPeer(i int, dir bpf.Direction) error {
	remote := &bpf.Remote{Identity: uint32(firstPeer + i)}
	if b.row.tunnel {
		remote.Peer, remote.Flags = peerIndex, bpf.RemoteTunnel
	}
	addr := b.peerAddr(i)
	var err error
	if addr.Is4() {
		err = b.maps.Ipcache4.Put(addr.As4(), remote)
	} else {
		err = b.maps.Ipcache6.Put(addr.As16(), remote)
	}
	if err != nil {
		return err
	}
	port := uint16(80)
	if b.row.denied {
		port = 81 // there are entries, but none for this port
	}
	return b.maps.Policy.Put(
		&bpf.PolicyKey{Subject: podIdentity, Peer: remote.Identity, Port: port, PortPrefix: 16, Proto: 6, Dir: dir},
		&bpf.PolicyEntry{Precedence: 1, RuleID: uint32(10 + i), Verdict: bpf.VerdictAllow})
}

// measure runs the rounds for a number of flows.
func (b *bench) measure(flows uint64, rounds, repeat int) (figure, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if b.row.newFlow && flows == 1 {
		// One flow can't be new again and again: take one peer's ports.
		return b.measurePeers(1, 0, rounds, repeat)
	}
	if b.row.newFlow {
		flows = 0
	}
	return b.measurePeers(b.peers, flows, rounds, repeat)
}

func (b *bench) measurePeers(peers int, flows uint64, rounds, repeat int) (figure, error) {
	// Opens all flows and warms up what can be warm.
	if _, err := b.run(slotMeasured, peers, flows, max(repeat, manyFlows)); err != nil {
		return figure{}, err
	}
	var diffs, noops []float64
	var strays uint64
	for range rounds {
		noop, err := b.run(slotNoop, peers, flows, repeat)
		if err != nil {
			return figure{}, err
		}
		before, err := b.counted()
		if err != nil {
			return figure{}, err
		}
		full, err := b.run(slotMeasured, peers, flows, repeat)
		if err != nil {
			return figure{}, err
		}
		after, err := b.counted()
		if err != nil {
			return figure{}, err
		}
		// The flow table may refuse a packet when its lock is held too long,
		// which happens on a busy machine. More than that is no measurement.
		// More are counted when a signal interrupted the run, which is then begun again.
		met := after - before
		stray := max(met, uint64(repeat)) - min(met, uint64(repeat))
		if stray > uint64(repeat/1000) {
			return figure{}, fmt.Errorf("%d of %d packets were %s", met, repeat, b.row.want)
		}
		strays += stray
		diffs, noops = append(diffs, full-noop), append(noops, noop)
	}
	f := summarize(diffs, noops)
	f.strays = strays
	return f, nil
}

// run sends repeat packets through the program in a slot.
func (b *bench) run(slot uint32, peers int, flows uint64, repeat int) (float64, error) {
	state := &benchBench{Next: b.next, Flows: flows, Peers: uint32(peers), Slot: slot}
	if b.row.toPod {
		state.ToPod = 1
	}
	if slot == slotMeasured && flows == 0 {
		b.next += uint64(repeat) // the no-op opens no flows
	}
	if err := b.objs.BenchState.Put(uint32(0), state); err != nil {
		return 0, fmt.Errorf("preparing the wrapper: %w", err)
	}
	data := append([]byte(nil), b.frame...)
	return perOp(repeat, func() error {
		_, err := b.objs.FlBench.Run(&ebpf.RunOptions{Data: data, Repeat: uint32(repeat)})
		return err
	})
}

// counted is how many packets met the fate that the row measures.
func (b *bench) counted() (uint64, error) {
	hook := bpf.HookPodEgress
	if b.row.toPod {
		hook = bpf.HookPodIngress
	}
	var perCPU []bpf.Counter
	if err := b.maps.Metrics.Lookup(bpf.MetricIndex(b.row.want, hook), &perCPU); err != nil {
		return 0, fmt.Errorf("reading the counters: %w", err)
	}
	var n uint64
	for _, c := range perCPU {
		n += c.Packets
	}
	return n, nil
}

// frame builds a minimal TCP packet; the wrapper fills in peer and port.
func frame(r row, pod, peer netip.Addr) []byte {
	from, to := pod, peer
	if r.toPod {
		from, to = peer, pod
	}
	f := make([]byte, 12, 128)
	if from.Is4() {
		f = append(f, 0x08, 0x00)
		f = append(f, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0)
	} else {
		f = append(f, 0x86, 0xdd)
		f = append(f, 0x60, 0, 0, 0, 0, 40, 6, 64)
	}
	f = append(f, from.AsSlice()...)
	f = append(f, to.AsSlice()...)
	flags := byte(tcpACK)
	if r.newFlow {
		flags = tcpSYN
	}
	tcp := make([]byte, 40)
	tcp[3], tcp[12], tcp[13] = 80, 0x50, flags
	return append(f, tcp...)
}
