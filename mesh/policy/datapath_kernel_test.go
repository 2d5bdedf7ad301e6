// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build datapath

package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// What every packet has: the pod's addresses, which no policy names, and the interface, which has to exist.
var (
	podAddr4 = netip.MustParseAddr("172.31.0.10")
	podAddr6 = netip.MustParseAddr("fd99::10")
)

const (
	podIfindex = 1
	shot       = 2 // TC_ACT_SHOT
	clientPort = 20000
	// unasked stands for a rule that nobody looked up: that of a denial is found by reading a map of 4 MB.
	unasked  = ^uint32(0)
	lookEach = 32
)

// realKernel is maps and programs of this machine's kernel.
type realKernel struct {
	maps  *bpf.Maps
	progs *bpf.Programs

	subjects   rowsOf[bpf.SubjectKey, bpf.Subject]
	groups     rowsOf[bpf.GroupKey, bpf.GroupChunk]
	identities rowsOf[uint32, bpf.IdentityClass]
	classes    rowsOf[uint32, bpf.ClassSets]
	blocks4    rowsOf[bpf.CIDR4, uint32]
	blocks6    rowsOf[bpf.CIDR6, uint32]
	base       uint32 // the epoch in which a scene begins
	epoch      uint32
	holders    map[netip.Addr]uint32 // addresses whose row was written last for this identity
	subject    uint32
	port       uint16 // of the last client: each packet begins a flow

	packets, again, denials, blames int
	verdicts                        map[Verdict]int
}

// fataler is a test's.
type fataler interface{ Fatal(args ...any) }

// loaded once: the verifier takes longer than all else.
var loaded = sync.OnceValues(func() (*realKernel, error) {
	m, _, _, err := bpf.OpenMaps("", map[string]uint32{bpf.MapCT4: 65536, bpf.MapCT6: 65536, bpf.MapClasses: 16384})
	if err != nil {
		return nil, err
	}
	p, err := bpf.LoadPrograms(m)
	if err != nil {
		return nil, fmt.Errorf("%w (the datapath's tests need root)", err)
	}
	return &realKernel{maps: m, progs: p, epoch: 100, holders: map[netip.Addr]uint32{}, verdicts: map[Verdict]int{}}, nil
})

func theKernel(t fataler) *realKernel {
	k, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rowsOf is what a map holds.
type rowsOf[K comparable, V comparable] map[K]V

// become changes a map's rows to others, one by one. An array's rows can't go: they become zero.
func (r *rowsOf[K, V]) become(m *ebpf.Map, next map[K]V) error {
	for key := range *r {
		if _, stays := next[key]; stays {
			continue
		}
		var none V
		var err error
		if m.Type() == ebpf.Array {
			err = m.Put(&key, &none)
		} else {
			err = m.Delete(&key)
		}
		if err != nil {
			return fmt.Errorf("delete from %s: %w", m, err)
		}
	}
	for key, v := range next {
		if had, has := (*r)[key]; has && had == v {
			continue
		}
		if err := m.Put(&key, &v); err != nil {
			return fmt.Errorf("write to %s: %w", m, err)
		}
	}
	*r = next
	return nil
}

// beginSequence has all flows of before judged anew.
func (k *realKernel) beginSequence() { k.base = k.epoch + 2 }

// install makes compiled rows those of the programs, and the epochs what the writers of those rows say.
func (k *realKernel) install(t fataler, from *kernel) {
	subjects, groups := map[bpf.SubjectKey]bpf.Subject{}, map[bpf.GroupKey]bpf.GroupChunk{}
	for key, s := range from.subjects {
		row := bpf.Subject{Group: s.Group, Lines: s.Lines, DefaultRule: s.DefaultRule}
		for flag, set := range map[uint32]bool{bpf.SubjectIsolated: s.Isolated, bpf.SubjectAudit: s.Audit, bpf.SubjectClosed: s.Closed, bpf.SubjectBlocks: s.Blocks} {
			if set {
				row.Flags |= flag
			}
		}
		for bank := range uint8(2) {
			subjects[bpf.SubjectKey{Identity: key.Identity, Dir: dirOf(key.Dir), Bank: bank}] = row
		}
	}
	for id, lines := range from.groups {
		for i, l := range lines {
			key := bpf.GroupKey{Group: id, Chunk: uint32(i / bpf.GroupLines)}
			row := groups[key]
			row.Line[i%bpf.GroupLines] = bpf.PolicyLine{Set: l.Set, PortFrom: l.From, PortTo: l.To, Proto: l.Proto, Verdict: bpf.Verdict(l.Verdict), RuleID: l.Rule}
			groups[key] = row
		}
	}
	identities, classes := map[uint32]bpf.IdentityClass{}, map[uint32]bpf.ClassSets{}
	for id, class := range from.identities {
		identities[id] = bpf.IdentityClass{Class: class}
	}
	for class, bits := range from.classes {
		classes[class] = bpf.ClassSets{Sets: bits}
	}
	blocks4, blocks6 := map[bpf.CIDR4]uint32{}, map[bpf.CIDR6]uint32{}
	for p, id := range from.cidrs {
		if p.Addr().Is4() {
			blocks4[bpf.CIDR4{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}] = id
		} else {
			blocks6[bpf.CIDR6{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}] = id
		}
	}
	k.epoch = k.base + uint32(from.epoch)
	err := errors.Join(
		k.subjects.become(k.maps.Subjects, subjects), k.groups.become(k.maps.Groups, groups), k.identities.become(k.maps.Identities, identities),
		k.classes.become(k.maps.Classes, classes), k.blocks4.become(k.maps.Blocks4, blocks4), k.blocks6.become(k.maps.Blocks6, blocks6),
		k.maps.Config.Put(uint32(0), &bpf.Config{PolicyEpoch: k.epoch, FullEpoch: k.base + uint32(from.fullEpoch)}),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func dirOf(d Direction) bpf.Direction {
	if d == Egress {
		return bpf.DirEgress
	}
	return bpf.DirIngress
}

// give makes an address somebody's, as the agent does: the row, then the address's epoch.
func (k *realKernel) give(addr netip.Addr, id uint32) error {
	if had, has := k.holders[addr]; has && had == id {
		return nil
	}
	row := bpf.Remote{Identity: id}
	switch id {
	case identity.Host:
		row.Flags = bpf.RemoteHost
	case identity.Unknown:
		row.Flags = bpf.RemoteUnvouched
	}
	m, key := k.maps.Ipcache4, any(bpf.Addr4{Addr: [4]byte(addr.AsSlice()[:4])})
	if addr.Is6() {
		m, key = k.maps.Ipcache6, any(bpf.Addr6{Addr: addr.As16()})
	}
	var err error
	if id == identity.World { // nobody's that the mesh knows
		if err = m.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	} else {
		err = m.Put(key, &row)
	}
	if err != nil {
		return fmt.Errorf("write the row of %s: %w", addr, err)
	}
	k.holders[addr] = id
	index := bpf.AddressEpochIndex(addr)
	var epoch uint32
	if err := k.maps.AddressEpochs.Lookup(index, &epoch); err != nil {
		return fmt.Errorf("read the epoch of %s: %w", addr, err)
	}
	return k.maps.AddressEpochs.Put(index, epoch+1)
}

// become makes the interface that of another pod.
func (k *realKernel) become(subject uint32) error {
	if k.subject == subject {
		return nil
	}
	k.subject = subject
	for _, a := range []netip.Addr{podAddr4, podAddr6} {
		if err := k.give(a, subject); err != nil {
			return err
		}
	}
	return k.maps.Ifaces.Put(uint32(podIfindex), &bpf.Iface{
		Identity: subject, Flags: bpf.IfaceIP4 | bpf.IfaceIP6, IP4: podAddr4.As4(), IP6: podAddr6.As16(),
	})
}

// skb is the beginning of struct __sk_buff as a program that is run for a test takes it.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex                                           uint32
	Rest                                                                        [37]uint32
}

// flowOf is a connection that began.
type flowOf struct {
	Connection
	port uint16 // the client's
}

// begins sends the first packet of a connection through the pod's program.
func (k *realKernel) begins(t fataler, c Connection) (flowOf, Decision) {
	if k.port++; k.port < clientPort {
		k.port = clientPort
	}
	f := flowOf{c, k.port}
	return f, k.send(t, f, false)
}

// goesOn sends another one.
func (k *realKernel) goesOn(t fataler, f flowOf) Decision { return k.send(t, f, true) }

func (k *realKernel) send(t fataler, f flowOf, running bool) Decision {
	c := f.Connection
	if err := errors.Join(k.become(c.Subject), k.give(c.Addr, c.Peer)); err != nil {
		t.Fatal(err)
	}
	prog, from, to := k.progs.PodEgress, podAddr(c.Addr), c.Addr
	if c.Dir == Ingress {
		prog, from, to = k.progs.PodIngress, c.Addr, podAddr(c.Addr)
	}
	data := frame(from, to, c.Proto, f.port, c.Port, running)
	action, err := prog.Run(&ebpf.RunOptions{Data: data, DataOut: make([]byte, len(data)+256), Context: skb{Ifindex: podIfindex}, Repeat: 1})
	if err != nil {
		t.Fatal(fmt.Errorf("run %s: %w", prog, err))
	}
	e, err := k.entry(f)
	if action == shot {
		k.denials++
		d := Decision{Verdict: Deny, Rule: unasked}
		switch {
		case err == nil && e.Flags&bpf.CTDenied != 0:
			d.Rule = e.RuleID
			k.blames++
		case k.denials%lookEach == 0:
			if d.Rule, err = k.blamed(c); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	if err != nil {
		t.Fatal(fmt.Errorf("%+v passes with action %d and leaves no flow: %w", c, action, err))
	}
	d := Decision{Verdict: Allow, Rule: e.RuleID}
	if e.Flags&bpf.CTAudit != 0 {
		d.Verdict = AuditDeny
	}
	return d
}

// runs says whether the kernel still knows a flow: what is used least goes when its map is full.
func (k *realKernel) runs(f flowOf) bool {
	_, err := k.entry(f)
	return err == nil
}

func (k *realKernel) entry(f flowOf) (e bpf.CTEntry, err error) {
	podPort, peerPort := f.port, f.Port
	if f.Dir == Ingress {
		podPort, peerPort = f.Port, f.port
	}
	pod, asks := podAddr(f.Addr), bpf.Direction(0)
	if icmp.Is(f.Proto) {
		asks = dirOf(f.Dir)
	}
	if f.Addr.Is4() {
		err = k.maps.CT4.Lookup(&bpf.CT4Key{Pod: pod.As4(), Peer: f.Addr.As4(), PodPort: podPort, PeerPort: peerPort, Proto: f.Proto, Asks: asks}, &e)
	} else {
		err = k.maps.CT6.Lookup(&bpf.CT6Key{Pod: pod.As16(), Peer: f.Addr.As16(), PodPort: podPort, PeerPort: peerPort, Proto: f.Proto, Asks: asks}, &e)
	}
	return e, err
}

func podAddr(peer netip.Addr) netip.Addr {
	if peer.Is4() {
		return podAddr4
	}
	return podAddr6
}

// blamed is the rule by which a connection was denied just now.
func (k *realKernel) blamed(c Connection) (uint32, error) {
	want := bpf.DeniedKey{Subject: c.Subject, Port: c.Port, Proto: c.Proto, Dir: dirOf(c.Dir)}
	if c.Addr.Is4() {
		a := c.Addr.As4()
		copy(want.Peer[:], a[:])
	} else {
		want.Peer = c.Addr.As16()
	}
	n := int(k.maps.Denied.MaxEntries())
	keys, rows := make([]uint32, n), make([]bpf.Denied, n)
	var cursor ebpf.MapBatchCursor
	if _, err := k.maps.Denied.BatchLookup(&cursor, keys, rows, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("read what was denied: %w", err)
	}
	for _, row := range rows {
		if row.Key == want && row.Epoch == k.epoch {
			k.blames++
			return row.RuleID, nil
		}
	}
	return unasked, nil // nobody vouches: not remembered
}

// frame is a packet of a connection, the first or another one.
func frame(from, to netip.Addr, proto uint8, sport, dport uint16, running bool) []byte {
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, sport), dport)
	var l4 []byte
	switch proto {
	case protoTCP:
		l4 = append(ports, make([]byte, 16)...)
		l4[12], l4[13] = 0x50, 2 // SYN
		if running {
			l4[13] = 16 // ACK
		}
	case protoUDP:
		l4 = append(ports, 0, 12, 0, 0, 'p', 'i', 'n', 'g')
	case protoSCTP:
		l4 = append(ports, make([]byte, 8+20)...)
		l4[12], l4[15] = 1, 20 // INIT
		if running {
			l4[12] = 3 // SACK
		}
	default:
		typ, _ := icmp.Type(dport)
		l4 = []byte{typ, 0, 0, 0, byte(sport >> 8), byte(sport), 0, 1}
		if typ == 13 {
			l4 = append(l4, make([]byte, 12)...) // its times
		}
	}
	eth := append([]byte{2, 0, 0, 0, 0, 1}, 2, 0, 0, 0, 0, 2)
	var ip []byte
	if from.Is4() {
		eth = append(eth, 0x08, 0x00)
		ip = make([]byte, 20)
		ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)))
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
	} else {
		eth = append(eth, 0x86, 0xdd)
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(l4)))
		copy(ip[8:], from.AsSlice())
		copy(ip[24:], to.AsSlice())
	}
	return append(append(eth, ip...), l4...)
}
