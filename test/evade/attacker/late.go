// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// sendLate sends a packet whose checksum is left to the network card, and says of the checksum that it lies where something else is: a
// source, a destination or a port. Whoever computes it, behind everybody who looked at the packet, writes what the sender chose there.
// Claim is the source that shall come out, Over the destination, and Port the port; Open is the port that is shown first.
func sendLate(_ context.Context, a *attempt) error {
	src, dst := a.own, a.to
	switch a.Detail {
	case "source":
		src = a.claim
	case "destination":
		dst = a.over
	case "port":
	default:
		return kindError("late checksum", a.Detail)
	}
	sport := a.FromPort
	if a.Detail == "port" {
		sport = lateSource(src, dst, a.Open, len(a.Token))
		a.FromPort = sport
	}
	final := ipPacket{src: src, dst: dst, proto: unix.IPPROTO_TCP, payload: tcp(src, dst, sport, a.Port, "S", 1000, 0, nil, a.data())}
	shown, start, at, err := late(final, a.Detail, a.own, a.to, a.Open)
	if err != nil {
		return err
	}
	return a.wire.sendUnsummed(ethernet(a.next, a.wire.mac, a.etherType(), shown), 14+start, at-start)
}

// late turns a packet into one that becomes it when a checksum is computed from start on and written at at. shown are the addresses
// and the port that are to be seen before.
func late(final ipPacket, what string, src, dst netip.Addr, port uint16) (shown []byte, start, at int, err error) {
	v6 := final.dst.Is6()
	places := map[string][2]int{"source": {14, 22}, "destination": {18, 38}, "port": {22, 42}}
	at, start = places[what][0], 10
	if v6 {
		at, start = places[what][1], 6 // no earlier: the kernel wants an IPv4 header before
	}
	if what == "port" {
		start = at // the source port has been chosen so that it comes out right
	}
	build := func(free uint16) []byte {
		p := final
		if !v6 {
			p.id = free // which changes the header's checksum, from where on the sum begins
		} else if what != "port" {
			// An option that all skip: the segment's own checksum doesn't cover it.
			p.proto, p.payload = unix.IPPROTO_DSTOPTS, append(extension(final.proto, 0x1e, 4, byte(free>>8), byte(free), 0, 0), final.payload...)
		}
		return p.bytes()
	}
	before := map[string]uint16{"port": port}
	for name, addr := range map[string]netip.Addr{"source": src, "destination": dst} {
		b := addr.AsSlice()
		before[name] = binary.BigEndian.Uint16(b[len(b)-2:])
	}
	// Sixteen free bits for sixteen bits to hit.
	for free := range 1 << 16 {
		b := build(uint16(free))
		wanted := binary.BigEndian.Uint16(b[at:])
		binary.BigEndian.PutUint16(b[at:], before[what])
		if fold(sum(b[start:])) == wanted {
			return b, start, at, nil
		}
	}
	return nil, 0, 0, fmt.Errorf("no packet comes out right: %s of %s", what, final.dst)
}

// lateSource is the source port with which a valid checksum puts out what the port shall be.
func lateSource(src, dst netip.Addr, shown uint16, data int) uint16 {
	pseudo := ^fold(sum(src.AsSlice()) + sum(dst.AsSlice()) + unix.IPPROTO_TCP + uint32(20+data))
	return uint16((uint32(shown) + 2*0xffff - uint32(pseudo)) % 0xffff)
}

// sendUnsummed sends a frame whose checksum is still to be computed.
func (w *wire) sendUnsummed(frame []byte, start, offset int) error {
	if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fmt.Errorf("leave checksums to the card: %w", err)
	}
	header := make([]byte, 10)
	header[0] = 1 // a checksum is needed
	binary.NativeEndian.PutUint16(header[6:], uint16(start))
	binary.NativeEndian.PutUint16(header[8:], uint16(offset))
	err := unix.Sendto(w.fd, slices.Concat(header, frame), 0, &unix.SockaddrLinklayer{Ifindex: w.index})
	// Without it again, for answers come with such a header otherwise.
	if e := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 0); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("send a frame without a checksum: %w", err)
	}
	return nil
}
