// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// sendICMP sends a message that isn't an error, with the token.
func sendICMP(_ context.Context, a *attempt) error {
	four := map[string]byte{"echo": 8, "echo reply": 0, "timestamp": 13, "address mask": 17, "router solicitation": 10, "extended echo": 42, "unknown": 200}
	six := map[string]byte{"echo": 128, "echo reply": 129, "node information": 139, "extended echo": 160, "unknown": 200}
	kinds := four
	if a.to.Is6() {
		kinds = six
	}
	kind, ok := kinds[a.Detail]
	if !ok {
		return kindError("ICMP message", a.Detail)
	}
	proto, b := icmp(a.claim, a.to, kind, 0, uint32(a.FromPort)<<16|1, a.data())
	return a.send(a.packet(proto, b))
}

// sendQuote forges an error about a packet of the target's: from its port to somebody else's (Over, FromPort).
func sendQuote(_ context.Context, a *attempt) error {
	type kind struct {
		kind, code byte
		rest       uint32
	}
	four := map[string]kind{
		"port unreachable": {3, 3, 0}, "too big": {3, 4, 68}, "time exceeded": {11, 0, 0}, "parameter problem": {12, 0, 0}, "source quench": {4, 0, 0},
		"redirect": {5, 1, binary.BigEndian.Uint32(padTo(a.own.AsSlice(), 4))},
	}
	six := map[string]kind{
		"port unreachable": {1, 4, 0}, "too big": {2, 0, 1280}, "time exceeded": {3, 0, 0}, "parameter problem": {4, 0, 40}, "unknown error": {100, 0, 0},
	}
	kinds := four
	if a.to.Is6() {
		kinds = six
	}
	k, ok := kinds[a.Detail]
	if !ok {
		return kindError("ICMP error", a.Detail)
	}
	over := a.over
	if !over.IsValid() {
		over = a.own
	}
	quoted := ipPacket{src: a.to, dst: over, proto: unix.IPPROTO_TCP, payload: tcp(a.to, over, a.Port, a.FromPort, "PA", 1000, 1000, nil, a.data())}
	proto, b := icmp(a.claim, a.to, k.kind, k.code, k.rest, quoted.bytes())
	return a.send(a.packet(proto, b))
}

// unknownOption carries the token in neighbour discovery: receivers skip what they don't know.
func unknownOption(token string) []byte {
	b := padded(append([]byte{253, 0}, token...), 8)
	b[1] = byte(len(b) / 8)
	return b
}

// macOption is a source (1) or target (2) link-layer address.
func macOption(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// sendND sends neighbour discovery. Claim is the sender, Over the target address that it is about.
func sendND(_ context.Context, a *attempt) error {
	target := a.over
	if !target.IsValid() {
		target = a.own
	}
	mac, hop := a.wire.mac, byte(255)
	var kind byte
	var rest uint32
	var body []byte
	switch a.Detail {
	case "router solicitation":
		kind, body = 133, macOption(1, mac)
	case "router advertisement":
		kind, rest = 134, 64<<24|0x0708 // a router for half an hour
		body = slices.Concat(make([]byte, 8), macOption(1, mac))
	case "neighbour solicitation":
		kind, body = 135, append(target.AsSlice(), macOption(1, mac)...)
	case "neighbour advertisement":
		kind, rest, body = 136, 0x60000000, append(target.AsSlice(), macOption(2, mac)...) // solicited, override
	case "redirect":
		kind, body = 137, slices.Concat(a.own.AsSlice(), target.AsSlice(), macOption(2, mac))
	case "with hop limit 64":
		kind, hop, body = 135, 64, append(target.AsSlice(), macOption(1, mac)...)
	case "with much data":
		kind, body = 135, slices.Concat(target.AsSlice(), macOption(1, mac), slices.Repeat(unknownOption(a.Token), 20))
	default:
		return kindError("neighbour discovery", a.Detail)
	}
	_, b := icmp(a.claim, a.to, kind, 0, rest, append(body, unknownOption(a.Token)...))
	return a.send(ipPacket{src: a.claim, dst: a.to, proto: unix.IPPROTO_ICMPV6, hop: hop, payload: b})
}

// sendMLD sends listener messages.
func sendMLD(_ context.Context, a *attempt) error {
	group := netip.MustParseAddr("ff02::fb").AsSlice()
	kind, body := byte(131), group
	switch a.Detail {
	case "query":
		kind = 130
	case "report", "report with much data", "report from a global address":
	case "report of version 2":
		kind, body = 143, append([]byte{4, 0, 0, 0}, group...)
	default:
		return kindError("listener message", a.Detail)
	}
	if a.Detail == "report with much data" {
		body = append(body, make([]byte, 700)...)
	}
	src := a.claim
	if a.Detail != "report from a global address" {
		src = linkLocal(a.wire.mac)
	}
	_, b := icmp(src, a.to, kind, 0, 0, append(body, a.data()...))
	return a.send(ipPacket{src: src, dst: a.to, proto: unix.IPPROTO_ICMPV6, hop: 1, payload: b})
}

// linkLocal is the address that an interface gives itself.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// arp is a message about the claimed address, with the token where hardware pads.
func (a *attempt) arp(operation byte, claim netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, operation}
	b = append(append(b, a.wire.mac...), claim.AsSlice()...)
	b = append(append(b, a.next...), a.to.AsSlice()...)
	return append(b, a.data()...)
}

// sendARP claims an address on the link.
func sendARP(_ context.Context, a *attempt) error {
	var b []byte
	kind := uint16(unix.ETH_P_ARP)
	switch a.Detail {
	case "request":
		b = a.arp(1, a.claim)
	case "reply":
		b = a.arp(2, a.claim)
	case "with much data":
		b = append(a.arp(1, a.claim), append(make([]byte, 1200), a.data()...)...)
	case "long addresses": // so that the claimed one is where nobody looks for it
		b = append([]byte{0, 1, 8, 0, 8, 4, 0, 2}, append(make([]byte, 2), a.arp(2, a.claim)[8:]...)...)
	case "reverse":
		kind, b = 0x8035, a.arp(3, a.claim)
	default:
		return kindError("ARP message", a.Detail)
	}
	return a.wire.send(ethernet(a.next, a.wire.mac, kind, b))
}

// sendEthernet puts a datagram for the target, from the own address, into frames that aren't what they should be.
func sendEthernet(_ context.Context, a *attempt) error {
	b := a.packet(unix.IPPROTO_UDP, a.udp()).bytes()
	kind := a.etherType()
	dst := a.next
	tag := func(kind uint16) []byte { return []byte{0, 1, byte(kind >> 8), byte(kind)} }
	snap := append([]byte{0xaa, 0xaa, 3, 0, 0, 0, byte(kind >> 8), byte(kind)}, b...)
	switch a.Detail {
	case "direct", "broadcast":
	case "multicast":
		dst = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
	case "VLAN":
		kind, b = unix.ETH_P_8021Q, append(tag(kind), b...)
	case "VLAN of priority":
		kind, b = unix.ETH_P_8021Q, append([]byte{0xe0, 0, byte(kind >> 8), byte(kind)}, b...)
	case "802.1ad":
		kind, b = unix.ETH_P_8021AD, append(tag(kind), b...)
	case "two VLANs":
		kind, b = unix.ETH_P_8021AD, slices.Concat(tag(unix.ETH_P_8021Q), tag(kind), b)
	case "LLC":
		kind, b = uint16(3+len(b)), append([]byte{0x42, 0x42, 3}, b...)
	case "SNAP":
		kind, b = uint16(len(snap)), snap
	case "the other family's type":
		kind ^= unix.ETH_P_IP ^ unix.ETH_P_IPV6
	case "MPLS":
		kind, b = unix.ETH_P_MPLS_UC, append([]byte{0, 1, 1, 64}, b...)
	case "PPPoE":
		kind, b = unix.ETH_P_PPP_SES, append([]byte{0x11, 0, 0, 1, 0, byte(2 + len(b)), 0, 0x21}, b...)
	case "unknown type":
		kind = 0x88b5
	case "spanning tree":
		dst, kind, b = net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, uint16(3+len(b)), append([]byte{0x42, 0x42, 3}, b...)
	case "link layer discovery":
		dst, kind = net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, unix.ETH_P_LLDP
	case "EAPOL":
		kind = unix.ETH_P_PAE
	default:
		return kindError("frame", a.Detail)
	}
	return a.wire.send(ethernet(dst, a.wire.mac, kind, b))
}

// steal repeats, for a while, what shall make others send their frames here.
func steal(ctx context.Context, a *attempt) error {
	end := time.Now().Add(a.For)
	for time.Now().Before(end) && ctx.Err() == nil {
		var err error
		switch a.Detail {
		case "ARP":
			b := a.arp(2, a.claim)
			err = a.wire.send(ethernet(a.next, a.wire.mac, unix.ETH_P_ARP, b))
		case "neighbour advertisement", "long neighbour advertisement":
			body := append(a.over.AsSlice(), macOption(2, a.wire.mac)...)
			if a.Detail[0] == 'l' { // longer than any that is honest
				body = append(body, slices.Repeat(unknownOption(a.Token), 8)...)
			}
			_, b := icmp(a.claim, a.to, 136, 0, 0x20000000, body)
			err = a.send(ipPacket{src: a.claim, dst: a.to, proto: unix.IPPROTO_ICMPV6, hop: 255, payload: b})
		case "hardware address": // Mine is the victim's: the bridge is to learn that it is here
			err = a.send(a.packet(unix.IPPROTO_UDP, a.udp()))
			if err == nil && a.own.Is4() {
				err = a.wire.send(ethernet(broadcast, a.wire.mac, unix.ETH_P_ARP, a.arp(1, a.own)))
			}
		default:
			return kindError("theft", a.Detail)
		}
		if err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// sendTunnel hides a datagram for Over, from the claimed address, inside a packet to the target.
func sendTunnel(_ context.Context, a *attempt) error {
	inner := ipPacket{src: a.claim, dst: a.over, proto: unix.IPPROTO_UDP, payload: udp(a.claim, a.over, a.FromPort, 8081, a.data())}.bytes()
	kind, proto := uint16(unix.ETH_P_IP), byte(unix.IPPROTO_IPIP)
	if a.over.Is6() {
		kind, proto = unix.ETH_P_IPV6, unix.IPPROTO_IPV6
	}
	frame := ethernet(a.next, a.wire.mac, kind, inner)
	outer := ipPacket{src: a.own, dst: a.to}
	datagram := func(port uint16, head []byte, b []byte) ipPacket {
		outer.proto, outer.payload = unix.IPPROTO_UDP, udp(a.own, a.to, a.FromPort, port, append(head, b...))
		return outer
	}
	gre := []byte{0, 0, byte(kind >> 8), byte(kind)}
	switch a.Detail {
	case "IP in IP":
		outer.proto, outer.payload = proto, inner
	case "GRE":
		outer.proto, outer.payload = unix.IPPROTO_GRE, append(gre, inner...)
	case "GRE with a frame":
		outer.proto, outer.payload = unix.IPPROTO_GRE, append([]byte{0, 0, 0x65, 0x58}, frame...)
	case "VXLAN":
		return a.send(datagram(4789, []byte{8, 0, 0, 0, 0, 0, 1, 0}, frame))
	case "Geneve":
		return a.send(datagram(6081, []byte{0, 0, 0x65, 0x58, 0, 0, 1, 0}, frame))
	case "FOU":
		return a.send(datagram(5555, nil, inner))
	case "WireGuard", "WireGuard's data":
		head := []byte{1, 0, 0, 0} // a handshake
		if a.Detail != "WireGuard" {
			head = []byte{4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}
		}
		return a.send(datagram(51871, head, inner))
	default:
		return kindError("tunnel", a.Detail)
	}
	return a.send(outer)
}
