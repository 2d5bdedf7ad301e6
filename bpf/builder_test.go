// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// A packet is written as what it means: tcp(from, to).ports(1, 2).syn().bytes(t).
type packetSpec struct {
	from, to  netip.Addr
	l4        gopacket.SerializableLayer
	proto     layers.IPProtocol
	payload   []byte
	frag      *fragment
	dontFrag  bool
	hopLimit  uint8
	etherType layers.EthernetType // overrides what the addresses say
}

type fragment struct {
	id     uint32
	offset uint16 // bytes
	more   bool
}

func base(from, to netip.Addr) *packetSpec {
	return &packetSpec{from: from, to: to, hopLimit: 64, dontFrag: true}
}

func tcp(from netip.Addr, sport uint16, to netip.Addr, dport uint16, flags string) *packetSpec {
	p := base(from, to)
	l := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Window: 1024, Seq: 7}
	for _, f := range flags {
		switch f {
		case 'S':
			l.SYN = true
		case 'A':
			l.ACK = true
		case 'F':
			l.FIN = true
		case 'R':
			l.RST = true
		}
	}
	p.l4, p.proto = l, layers.IPProtocolTCP
	return p
}

func udp(from netip.Addr, sport uint16, to netip.Addr, dport uint16) *packetSpec {
	p := base(from, to)
	p.l4, p.proto = &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, layers.IPProtocolUDP
	p.payload = []byte("hello, mesh")
	return p
}

// echo is a ping or, with reply, the answer to one.
func echo(from, to netip.Addr, id uint16, reply bool) *packetSpec {
	typ := uint8(layers.ICMPv4TypeEchoRequest)
	switch {
	case from.Is4() && reply:
		typ = layers.ICMPv4TypeEchoReply
	case from.Is6() && reply:
		typ = layers.ICMPv6TypeEchoReply
	case from.Is6():
		typ = layers.ICMPv6TypeEchoRequest
	}
	return message(from, to, typ, id)
}

// message is ICMP of a type; which ones have an id says its definition.
func message(from, to netip.Addr, typ uint8, id uint16) *packetSpec {
	p := base(from, to)
	if from.Is4() {
		p.l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: id, Seq: 1}
		p.proto = layers.IPProtocolICMPv4
		return p
	}
	p.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
	p.payload = []byte{byte(id >> 8), byte(id), 0, 1}
	p.proto = layers.IPProtocolICMPv6
	return p
}

// unreachable is the ICMP error "port unreachable" about a packet.
func unreachable(t *testing.T, from, to netip.Addr, about *packetSpec) *packetSpec {
	p := base(from, to)
	quoted := about.bytes(t)[ethHeaderLength:]
	if from.Is4() {
		p.l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, 3)}
		p.proto = layers.IPProtocolICMPv4
		p.payload = quoted
		return p
	}
	p.l4 = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, 4)}
	p.proto = layers.IPProtocolICMPv6
	p.payload = append([]byte{0, 0, 0, 0}, quoted...)
	return p
}

func (p *packetSpec) data(b []byte) *packetSpec { p.payload = b; return p }

func (p *packetSpec) fragment(id uint32, offset uint16, more bool) *packetSpec {
	p.frag = &fragment{id: id, offset: offset, more: more}
	return p
}

// mss puts options into the SYN: MSS, after so many NOPs.
func (p *packetSpec) mss(v uint16, nops int) *packetSpec {
	l := p.l4.(*layers.TCP)
	for range nops {
		l.Options = append(l.Options, layers.TCPOption{OptionType: layers.TCPOptionKindNop})
	}
	l.Options = append(l.Options, layers.TCPOption{
		OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{byte(v >> 8), byte(v)},
	})
	return p
}

// bytes serializes the packet as a frame from the pod (or to it: MACs don't matter).
func (p *packetSpec) bytes(t *testing.T) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: podMAC[:], DstMAC: hostMAC[:], EthernetType: layers.EthernetTypeIPv4}
	if p.from.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
	}
	if p.etherType != 0 {
		eth.EthernetType = p.etherType
	}
	ls := []gopacket.SerializableLayer{eth}
	ls = append(ls, p.network()...)
	if p.l4 != nil && (p.frag == nil || p.frag.offset == 0) {
		ls = append(ls, p.l4)
	}
	ls = append(ls, gopacket.Payload(p.payload))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ls...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (p *packetSpec) network() []gopacket.SerializableLayer {
	type checksummed interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}
	var ip gopacket.NetworkLayer
	var out []gopacket.SerializableLayer
	if p.from.Is4() {
		l := &layers.IPv4{Version: 4, TTL: p.hopLimit, Protocol: p.proto,
			SrcIP: net.IP(p.from.AsSlice()), DstIP: net.IP(p.to.AsSlice())}
		if p.dontFrag {
			l.Flags = layers.IPv4DontFragment
		}
		if p.frag != nil {
			l.Id, l.FragOffset, l.Flags = uint16(p.frag.id), p.frag.offset/8, 0
			if p.frag.more {
				l.Flags = layers.IPv4MoreFragments
			}
		}
		ip, out = l, append(out, l)
	} else {
		l := &layers.IPv6{Version: 6, HopLimit: p.hopLimit, NextHeader: p.proto,
			SrcIP: net.IP(p.from.AsSlice()), DstIP: net.IP(p.to.AsSlice())}
		ip, out = l, append(out, l)
		if p.frag != nil {
			l.NextHeader = layers.IPProtocolIPv6Fragment
			out = append(out, gopacket.Payload(p.fragmentHeader6()))
		}
	}
	if l, ok := p.l4.(checksummed); ok {
		_ = l.SetNetworkLayerForChecksum(ip)
	}
	return out
}

func (p *packetSpec) fragmentHeader6() []byte {
	word := p.frag.offset &^ 7
	if p.frag.more {
		word |= 1
	}
	id := p.frag.id
	return []byte{byte(p.proto), 0, byte(word >> 8), byte(word), byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
}

// decode parses a frame that came out of a program.
func decode(data []byte) gopacket.Packet {
	return gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
}
