// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// row is one path through a hook.
type row struct {
	name    string
	toPod   bool
	ip6     bool
	tunnel  bool // the peers are behind the tunnel
	newFlow bool // each packet opens a flow
	denied  bool // policy denies it
	uplink  bool // on a node's uplink, from the node
	nodes   bool // to nodes of the mesh
	moves   epochMove
	program func(*bpf.Programs) *ebpf.Program
	want    bpf.Reason // what every measured packet must be counted as; NONE: passed without being counted
}

// epochMove is what happens to fl_config before each round.
type epochMove int

const (
	stays epochMove = iota
	policyMoves
	fullMoves
)

func egress(p *bpf.Programs) *ebpf.Program  { return p.PodEgress }
func ingress(p *bpf.Programs) *ebpf.Program { return p.PodIngress }
func uplink(p *bpf.Programs) *ebpf.Program  { return p.UplinkEgress }

var packetRows = []row{
	{name: "pod egress, established", program: egress, want: bpf.ReasonForwarded},
	{name: "pod egress into the tunnel, established", program: egress, tunnel: true, want: bpf.ReasonTunneled},
	{name: "pod egress, new flow", program: egress, newFlow: true, want: bpf.ReasonForwarded},
	{name: "pod egress, denied", program: egress, newFlow: true, denied: true, want: bpf.ReasonDefaultDenied},
	{name: "pod egress, policy moved, same class and group", program: egress, moves: policyMoves, want: bpf.ReasonForwarded},
	{name: "pod egress, policy moved, judged in full", program: egress, moves: fullMoves, want: bpf.ReasonForwarded},
	{name: "pod ingress, established", program: ingress, toPod: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, new flow", program: ingress, toPod: true, newFlow: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, denied", program: ingress, toPod: true, newFlow: true, denied: true, want: bpf.ReasonDefaultDenied},
	{name: "pod egress, established, IPv6", program: egress, ip6: true, want: bpf.ReasonForwarded},
	{name: "pod ingress, established, IPv6", program: ingress, toPod: true, ip6: true, want: bpf.ReasonForwarded},
	{name: "uplink, node to nodes", program: uplink, uplink: true, nodes: true},
	{name: "uplink, node to the world", program: uplink, uplink: true},
}

// scans says whether the row's packets scan the lines of the policy.
func (r row) scans() bool { return r.newFlow || r.moves == fullMoves }

// from is the near end of the row's packets.
func (r row) from() netip.Addr {
	switch {
	case r.uplink:
		return netip.MustParseAddr("10.0.0.1")
	case r.ip6:
		return netip.MustParseAddr("fd00:1::10")
	}
	return netip.MustParseAddr("10.1.0.10")
}

// peer is the address that bench.bpf.c writes for a peer's number.
func (r row) peer(i int) netip.Addr {
	if r.ip6 {
		a := netip.MustParseAddr("fd00:2::").As16()
		a[12], a[13], a[14], a[15] = byte(i>>24), byte(i>>16), byte(i>>8), byte(i)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)})
}

func (r row) dir() bpf.Direction {
	if r.toPod {
		return bpf.DirIngress
	}
	return bpf.DirEgress
}

func (r row) hook() bpf.Hook {
	if r.toPod {
		return bpf.HookPodIngress
	}
	return bpf.HookPodEgress
}

// frame builds a minimal TCP packet; the wrapper fills in peer and port.
func (r row) frame() []byte {
	from, to := r.from(), r.peer(0)
	if r.toPod {
		from, to = to, from
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
