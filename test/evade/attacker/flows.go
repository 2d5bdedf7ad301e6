// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// packets are the techniques that need NET_RAW.
var packets = map[string]technique{
	"tcp": sendTCP, "tcp-fast-open": sendFastOpen, "tcp-flood": floodTCP, "udp": sendUDP, "sctp": sendSCTP, "protocol": sendProtocol,
	"fragments": sendFragments, "extension": sendExtension, "option": sendOption, "length": sendLength, "icmp": sendICMP, "quote": sendQuote,
	"nd": sendND, "mld": sendMLD, "arp": sendARP, "ethernet": sendEthernet, "tunnel": sendTunnel, "steal": steal, "late checksum": sendLate, "shared headers": shareHeaders, "steal shared": stealShared,
}

func kindError(how, detail string) error { return fmt.Errorf("there is no %s of kind %q", how, detail) }

// sendTCP sends one segment with the flags of Detail, with the token as its data.
func sendTCP(_ context.Context, a *attempt) error {
	return a.send(a.packet(unix.IPPROTO_TCP, tcp(a.claim, a.to, a.FromPort, a.Port, a.Detail, 1000, 1, nil, a.data())))
}

// sendFastOpen asks for a cookie and sends data at once (RFC 7413).
func sendFastOpen(_ context.Context, a *attempt) error {
	options := []byte{34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1}
	return a.send(a.packet(unix.IPPROTO_TCP, tcp(a.claim, a.to, a.FromPort, a.Port, "S", 1000, 0, options, a.data())))
}

// floodTCP sends segments all over the sequence space: a flow's window is a four-thousandth of it.
func floodTCP(ctx context.Context, a *attempt) error {
	end := time.Now().Add(max(a.For, time.Second))
	for i := uint32(0); time.Now().Before(end) && ctx.Err() == nil; i++ {
		seq := i * 60000
		if err := a.send(a.packet(unix.IPPROTO_TCP, tcp(a.claim, a.to, a.FromPort, a.Port, a.Detail, seq, seq, nil, a.data()))); err != nil {
			return err
		}
	}
	return nil
}

func sendUDP(_ context.Context, a *attempt) error { return a.send(a.packet(unix.IPPROTO_UDP, a.udp())) }

// sendSCTP begins a handshake (RFC 9260), with the token in a parameter that nobody knows.
func sendSCTP(_ context.Context, a *attempt) error {
	parameter := padded(append([]byte{0xc0, 0x99, 0, byte(4 + len(a.Token))}, a.data()...), 4)
	b := binary.BigEndian.AppendUint16(nil, a.FromPort)
	b = binary.BigEndian.AppendUint16(b, a.Port)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // tag, checksum
	b = append(b, 1, 0)                   // INIT
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(parameter)))
	b = append(b, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4)
	b = append(b, parameter...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return a.send(a.packet(unix.IPPROTO_SCTP, b))
}

// sendProtocol sends a packet of a protocol that has no ports for policy, by number. Where there are some, they are in the first bytes.
func sendProtocol(_ context.Context, a *attempt) error {
	n, err := strconv.ParseUint(a.Detail, 10, 8)
	if err != nil {
		return fmt.Errorf("protocol %q: %w", a.Detail, err)
	}
	b := binary.BigEndian.AppendUint16(nil, a.FromPort)
	b = binary.BigEndian.AppendUint16(b, a.Port)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	return a.send(a.packet(byte(n), append(b, a.data()...)))
}

// sendFragments cuts a datagram in ways that hide its ports, or show others first.
func sendFragments(_ context.Context, a *attempt) error {
	whole := padded(udp(a.claim, a.to, a.FromPort, a.Port, append(make([]byte, 32), a.data()...)), 8)
	open := padded(udp(a.claim, a.to, a.FromPort, a.Open, make([]byte, 32)), 8)
	segment := padded(tcp(a.claim, a.to, a.FromPort, a.Port, "S", 1000, 0, nil, append(make([]byte, 32), a.data()...)), 8)
	openSegment := padded(tcp(a.claim, a.to, a.FromPort, a.Open, "S", 1000, 0, nil, make([]byte, 32)), 8)
	const u, t = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	type piece struct {
		proto byte
		at    int
		data  []byte
		more  bool
	}
	kinds := map[string][]piece{
		"in two":                {{u, 0, whole[:16], true}, {u, 16, whole[16:], false}},
		"TCP in two":            {{t, 0, segment[:24], true}, {t, 24, segment[24:], false}},
		"tiny first":            {{t, 0, segment[:8], true}, {t, 8, segment[8:], false}},
		"later first":           {{u, 16, whole[16:], false}, {u, 0, whole[:16], true}},
		"only a later one":      {{u, 16, whole[16:], false}},
		"ports rewritten":       {{u, 0, open[:16], true}, {u, 0, whole[:16], true}, {u, 16, whole[16:], false}},
		"TCP ports rewritten":   {{t, 0, openSegment[:24], true}, {t, 0, segment[:24], true}, {t, 24, segment[24:], false}},
		"TCP tail rewritten":    {{t, 0, openSegment[:24], true}, {t, 8, segment[8:], false}},
		"another protocol then": {{t, 0, openSegment[:24], true}, {u, 0, whole[:16], true}, {u, 16, whole[16:], false}},
		"protocol changes":      {{t, 0, openSegment[:24], true}, {u, 24, whole[24:], false}},
		"no end":                {{u, 0, whole[:16], true}, {u, 16, whole[16:], true}},
		"past the end":          {{u, 0, whole[:16], true}, {u, 65504, whole[len(whole)-24:], false}},
	}
	pieces, ok := kinds[a.Detail]
	if !ok {
		return a.sendFragments6(whole)
	}
	p := a.packet(0, nil)
	for _, f := range pieces {
		if a.to.Is6() {
			p.proto, p.payload = unix.IPPROTO_FRAGMENT, append(fragmentHeader(f.proto, f.at, f.more, uint32(p.id)), f.data...)
		} else {
			p.proto, p.payload, p.frag = f.proto, f.data, uint16(f.at/8)
			if f.more {
				p.frag |= 0x2000
			}
		}
		if err := a.send(p); err != nil {
			return err
		}
	}
	return nil
}

// sendFragments6 does what only IPv6's fragment header can.
func (a *attempt) sendFragments6(whole []byte) error {
	if a.to.Is4() {
		if a.Detail != "reserved bit" {
			return kindError("fragments", a.Detail)
		}
		p := a.packet(unix.IPPROTO_UDP, whole)
		p.frag = 0xc000 // and "don't fragment"
		return a.send(p)
	}
	const u, f = unix.IPPROTO_UDP, unix.IPPROTO_FRAGMENT
	hidden := append(extension(u), whole...)
	kinds := map[string][][]byte{
		"atomic":          {append(fragmentHeader(u, 0, false, 7), whole...)},
		"ports in second": {append(fragmentHeader(unix.IPPROTO_DSTOPTS, 0, true, 8), hidden[:8]...), append(fragmentHeader(unix.IPPROTO_DSTOPTS, 8, false, 8), hidden[8:]...)},
		"in a fragment":   {slices.Concat(fragmentHeader(f, 0, false, 9), fragmentHeader(u, 0, false, 10), whole)},
		"later in first":  {slices.Concat(fragmentHeader(f, 0, true, 11), fragmentHeader(u, 16, false, 12), whole[16:])},
		"later in atomic": {slices.Concat(fragmentHeader(f, 0, false, 13), fragmentHeader(u, 16, false, 14), whole[16:])},
	}
	pieces, ok := kinds[a.Detail]
	if !ok {
		return kindError("fragments", a.Detail)
	}
	for _, b := range pieces {
		if err := a.send(a.packet(f, b)); err != nil {
			return err
		}
	}
	return nil
}

// sendExtension puts headers in front of a datagram (IPv6).
func sendExtension(_ context.Context, a *attempt) error {
	const u, hop, dst, rt = unix.IPPROTO_UDP, unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING
	d := a.udp()
	var proto byte
	var h []byte
	switch a.Detail {
	case "hop-by-hop":
		proto, h = hop, extension(u)
	case "router alert":
		proto, h = hop, extension(u, 5, 2, 0, 0)
	case "jumbo":
		proto, h = hop, extension(u, 0xc2, 4, 0, 1, 0, 0)
	case "destination options":
		proto, h = dst, extension(u)
	case "unknown option":
		proto, h = dst, extension(u, 0x1e, 4, 1, 2, 3, 4)
	case "hop-by-hop in the middle":
		proto, h = dst, append(extension(hop), extension(u)...)
	case "seven headers":
		proto, h = dst, append(slices.Repeat(extension(dst), 6), extension(u)...)
	case "routing 0", "routing 2", "routing 4": // at its end: nothing left to do
		proto, h = rt, routing(u, a.Detail[len(a.Detail)-1]-'0', 0, a.to)
	case "authentication":
		proto, h = unix.IPPROTO_AH, []byte{u, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}
	case "mobility":
		proto, h = 135, []byte{u, 0, 0, 0, 0, 0, 0, 0}
	case "host identity":
		proto, h = 139, []byte{u, 0, 0, 0, 0, 0, 0, 0}
	case "no next header":
		proto = unix.IPPROTO_NONE
	case "routing 0 over another", "routing 2 over another", "routing 3 over another", "routing 4 over another":
		return a.sendRouted(d)
	default:
		return kindError("extension header", a.Detail)
	}
	return a.send(a.packet(proto, append(h, d...)))
}

// sendRouted names the target as the last hop of a routing header, and another host as the next.
func (a *attempt) sendRouted(datagram []byte) error {
	p := a.packet(unix.IPPROTO_ROUTING, append(routing(unix.IPPROTO_UDP, a.Detail[len("routing ")]-'0', 1, a.to), datagram...))
	p.dst = a.over
	return a.sendVia(p)
}

// sendVia sends a packet whose first stop is another than the target.
func (a *attempt) sendVia(p ipPacket) error {
	mac, err := hardware(p.dst)
	if err != nil {
		return err
	}
	a.next = mac
	return a.send(p)
}

// sendOption puts options into the header (IPv4).
func sendOption(_ context.Context, a *attempt) error {
	p := a.packet(unix.IPPROTO_UDP, a.udp())
	route := func(kind byte, hop netip.Addr) []byte {
		return padded(append([]byte{kind, 7, 4}, hop.AsSlice()...), 4)
	}
	switch a.Detail {
	case "loose source route", "strict source route":
		kind := byte(0x83)
		if a.Detail[0] == 's' {
			kind = 0x89
		}
		p.options, p.dst = route(kind, a.to), a.over
		return a.sendVia(p)
	case "source route at its end":
		p.options = route(0x83, a.over)
		p.options[2] = 8
	case "record route":
		p.options = route(7, netip.IPv4Unspecified())
	case "timestamp":
		p.options = []byte{68, 8, 5, 0, 0, 0, 0, 0}
	case "router alert":
		p.options = []byte{148, 4, 0, 0}
	case "security":
		p.options = []byte{134, 6, 0, 0, 0, 0, 0, 0}
	case "forty bytes of nothing":
		p.options = slices.Repeat([]byte{1}, 40)
	default:
		return kindError("option", a.Detail)
	}
	return a.send(p)
}

// sendLength says a wrong length, or the other family's number.
func sendLength(_ context.Context, a *attempt) error {
	b := a.packet(unix.IPPROTO_UDP, a.udp()).bytes()
	at := 2
	if a.to.Is6() {
		at = 4
	}
	switch a.Detail {
	case "short": // the token is behind the packet's end
		binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])-uint16(len(a.Token)))
	case "long":
		binary.BigEndian.PutUint16(b[at:], 9000)
	case "zero":
		binary.BigEndian.PutUint16(b[at:], 0)
	case "header beyond the end":
		b[0] |= 15
	case "another version":
		b[0] = 0x50 | b[0]&15
	case "bad checksum":
		b[len(b)-len(a.Token)-1] ^= 1 // the datagram's
	default:
		return kindError("length", a.Detail)
	}
	if a.to.Is4() {
		size := min(int(b[0]&15)*4, len(b))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], fold(sum(b[:size])))
	}
	return a.sendIP(b)
}
