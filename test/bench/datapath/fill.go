// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// How the mesh around the pod looks.
const (
	manyClasses = 1024 // at most; peers are dealt out to them
	allowedSet  = 1    // all peers are in it
	firstSet    = 2    // of those that lines name in vain
	group       = 7
	clusters    = 250 // with a range 10.n.0.0/16 that uplinks guard; a node among them is the worst case of a trie
	mostCIDRs   = 60_000
)

// fill writes the endpoint, its policy, and for each peer an address, an identity and a class.
func (b *bench) fill(measured *ebpf.Program) error {
	near := b.row.from()
	iface := &bpf.Iface{Identity: podIdentity, Flags: bpf.IfaceIP4}
	if near.Is4() {
		iface.IP4 = near.As4()
	} else {
		iface.IP6, iface.Flags = near.As16(), bpf.IfaceIP6
	}
	puts := []struct {
		m    *ebpf.Map
		k, v any
	}{
		{b.maps.Config, uint32(0), &b.cfg},
		{b.maps.Peers, uint32(peerIndex), &bpf.Peer{Flags: bpf.PeerReady}},
		{b.maps.Ifaces, uint32(podIfindex), iface},
		{b.objs.BenchProgs, uint32(slotNoop), b.objs.FlBenchNoop},
		{b.objs.BenchProgs, uint32(slotMeasured), measured},
	}
	for _, p := range puts {
		if err := p.m.Put(p.k, p.v); err != nil {
			return fmt.Errorf("filling %s: %w", p.m, err)
		}
	}
	if err := b.fillPolicy(); err != nil {
		return fmt.Errorf("filling in the policy: %w", err)
	}
	if err := b.fillPeers(); err != nil {
		return fmt.Errorf("filling in the peers: %w", err)
	}
	if b.row.uplink {
		return b.fillRanges(near)
	}
	return nil
}

// fillPolicy gives the pod lines of which only the last one matches, or none.
func (b *bench) fillPolicy() error {
	port := uint16(80)
	if b.row.denied {
		port = 81 // the packets go elsewhere
	}
	lines := make([]bpf.PolicyLine, b.lines)
	for i := range lines {
		lines[i] = bpf.PolicyLine{
			Set: firstSet + uint16(i%(bpf.SetCount-firstSet)), Proto: 6, PortFrom: 80, PortTo: 80,
			RuleID: uint32(10 + i), Verdict: bpf.VerdictAllow,
		}
	}
	lines[b.lines-1].Set, lines[b.lines-1].PortFrom, lines[b.lines-1].PortTo = allowedSet, port, port
	for chunk := 0; chunk*bpf.GroupLines < len(lines); chunk++ {
		var c bpf.GroupChunk
		copy(c.Line[:], lines[chunk*bpf.GroupLines:])
		if err := b.maps.Groups.Put(&bpf.GroupKey{Group: group, Chunk: uint32(chunk)}, &c); err != nil {
			return err
		}
	}
	subject := &bpf.Subject{Flags: bpf.SubjectIsolated | bpf.SubjectBlocks, Group: group, DefaultRule: 1, Lines: uint32(b.lines)}
	for bank := range uint8(2) {
		key := &bpf.SubjectKey{Identity: podIdentity, Dir: b.row.dir(), Bank: bank}
		if err := b.maps.Subjects.Put(key, subject); err != nil {
			return err
		}
	}
	for class := range uint32(min(manyClasses, b.peers)) {
		if err := b.maps.Classes.Put(class+1, &bpf.ClassSets{Sets: [bpf.SetWords]uint64{1 << allowedSet}}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) fillPeers() error {
	n := b.peers
	identities, classes := make([]uint32, n), make([]bpf.IdentityClass, n)
	four, six, remotes := make([][4]byte, n), make([][16]byte, n), make([]bpf.Remote, n)
	for i := range n {
		identities[i] = uint32(firstPeer + i)
		classes[i].Class = uint32(1 + i%manyClasses)
		remotes[i].Identity = identities[i]
		switch {
		case b.row.tunnel:
			remotes[i].Peer, remotes[i].Flags = peerIndex, bpf.RemoteTunnel
		case b.row.nodes:
			remotes[i].Flags = bpf.RemoteNode
		}
		if a := b.row.peer(i); a.Is4() {
			four[i] = a.As4()
		} else {
			six[i] = a.As16()
		}
	}
	if _, err := b.maps.Identities.BatchUpdate(identities, classes, nil); err != nil {
		return err
	}
	switch {
	case b.row.uplink && !b.row.nodes:
		return b.fillElsewhere(remotes)
	case b.row.ip6:
		_, err := b.maps.Ipcache6.BatchUpdate(six, remotes, nil)
		return err
	}
	_, err := b.maps.Ipcache4.BatchUpdate(four, remotes, nil)
	return err
}

// fillElsewhere fills in as many addresses, none of which the row's packets go to.
func (b *bench) fillElsewhere(remotes []bpf.Remote) error {
	keys := make([][4]byte, len(remotes))
	for i := range keys {
		keys[i] = [4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}
	}
	_, err := b.maps.Ipcache4.BatchUpdate(keys, remotes, nil)
	return err
}

// fillRanges writes the node, the ranges of clusters, and as many ranges of policies as there are peers.
func (b *bench) fillRanges(node netip.Addr) error {
	if err := b.maps.Ipcache4.Put(node.As4(), &bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}); err != nil {
		return err
	}
	for i := range clusters {
		if i == 0 || i == 128 || i == 129 {
			continue // the node and its peers
		}
		k := &bpf.CIDR4{Prefixlen: 16, Addr: [4]byte{10, byte(i)}}
		if err := b.maps.Guard4.Put(k, uint32(1)); err != nil {
			return err
		}
		if err := b.maps.CIDR4.Put(k, &bpf.Remote{Flags: bpf.RemoteTunnel}); err != nil {
			return err
		}
	}
	for i := range min(b.peers, mostCIDRs) {
		k := &bpf.CIDR4{Prefixlen: 28}
		if binary.BigEndian.PutUint32(k.Addr[:], uint32(i)*2654435761&^15); k.Addr[0] == 10 {
			continue
		}
		if err := b.maps.Blocks4.Put(k, uint32(1<<24+i)); err != nil {
			return err
		}
	}
	return nil
}
