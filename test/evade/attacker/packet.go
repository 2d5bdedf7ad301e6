// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ipPacket is one of either family. Nothing checks that it makes sense: most of what is sent here doesn't.
type ipPacket struct {
	src, dst netip.Addr
	proto    byte
	hop      byte   // 0: 64
	options  []byte // IPv4
	id       uint16 // IPv4
	frag     uint16 // IPv4: flags and offset
	payload  []byte
}

func (p ipPacket) bytes() []byte {
	hop := p.hop
	if hop == 0 {
		hop = 64
	}
	if p.dst.Is6() {
		b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(p.payload)))
		b = append(b, p.proto, hop)
		b = append(append(b, p.src.AsSlice()...), p.dst.AsSlice()...)
		return append(b, p.payload...)
	}
	size := 20 + len(p.options)
	b := make([]byte, 20, size+len(p.payload))
	b[0] = 0x40 | byte(size/4)
	binary.BigEndian.PutUint16(b[2:], uint16(size+len(p.payload)))
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.frag)
	b[8], b[9] = hop, p.proto
	copy(b[12:], p.src.AsSlice())
	copy(b[16:], p.dst.AsSlice())
	b = append(b, p.options...)
	binary.BigEndian.PutUint16(b[10:], fold(sum(b)))
	return append(b, p.payload...)
}

func sum(b []byte) (s uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// checked writes the checksum of a transport header with its pseudo header.
func checked(src, dst netip.Addr, proto byte, at int, b []byte) []byte {
	s := sum(src.AsSlice()) + sum(dst.AsSlice()) + uint32(proto) + uint32(len(b)) + sum(b)
	binary.BigEndian.PutUint16(b[at:], fold(s))
	return b
}

func udp(src, dst netip.Addr, sport, dport uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	b = append(append(b, 0, 0), data...)
	return checked(src, dst, unix.IPPROTO_UDP, 6, b)
}

// tcp makes a segment; flags are letters of FSRPAU.
func tcp(src, dst netip.Addr, sport, dport uint16, flags string, seq, ack uint32, options, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, byte(5+len(options)/4)<<4, tcpFlags(flags), 0xff, 0xff, 0, 0, 0, 0)
	b = append(append(b, options...), data...)
	return checked(src, dst, unix.IPPROTO_TCP, 16, b)
}

func tcpFlags(letters string) (f byte) {
	for _, l := range letters {
		for i, known := range "FSRPAU" {
			if l == known {
				f |= 1 << i
			}
		}
	}
	return f
}

func icmp(src, dst netip.Addr, kind, code byte, rest uint32, data []byte) (proto byte, b []byte) {
	b = append(binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest), data...)
	if dst.Is6() {
		return unix.IPPROTO_ICMPV6, checked(src, dst, unix.IPPROTO_ICMPV6, 2, b)
	}
	binary.BigEndian.PutUint16(b[2:], fold(sum(b)))
	return unix.IPPROTO_ICMP, b
}

// padded makes the length a multiple of n, as extension headers and fragments want it.
func padded(b []byte, n int) []byte {
	for len(b)%n != 0 {
		b = append(b, 0)
	}
	return b
}

// fragmentHeader is IPv6's.
func fragmentHeader(next byte, offset int, more bool, id uint32) []byte {
	field := uint16(offset)
	if more {
		field |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{next, 0}, field)
	return binary.BigEndian.AppendUint32(b, id)
}

// extension is an IPv6 extension header of options, padded.
func extension(next byte, options ...byte) []byte {
	b := append([]byte{next, 0}, options...)
	if n := (8 - len(b)%8) % 8; n == 1 {
		b = append(b, 0)
	} else if n > 1 {
		b = append(b, 1, byte(n-2))
		b = append(b, make([]byte, n-2)...)
	}
	b[1] = byte(len(b)/8 - 1)
	return b
}

// routing is an IPv6 routing header with one address to go.
func routing(next, kind, left byte, over netip.Addr) []byte {
	rest := []byte{0, 0, 0, 0}
	return append(append([]byte{next, 2, kind, left}, rest...), over.AsSlice()...)
}
