// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

var (
	a4, b4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a6, b6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// What is written is what others read: gopacket knows the same headers, and its checksums.
func TestPackets(t *testing.T) {
	for _, c := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		src, dst := c[0], c[1]
		protocol, echo := icmp(src, dst, 8, 0, 7, []byte("x"))
		for _, p := range []ipPacket{
			{src: src, dst: dst, proto: unix.IPPROTO_UDP, payload: udp(src, dst, 1, 2, []byte("odd"))},
			{src: src, dst: dst, proto: unix.IPPROTO_TCP, payload: tcp(src, dst, 1, 2, "SA", 3, 4, []byte{1, 1, 1, 1}, []byte("data"))},
			{src: src, dst: dst, proto: protocol, payload: echo},
		} {
			again(t, p)
		}
	}
}

func again(t *testing.T, p ipPacket) {
	t.Helper()
	b := p.bytes()
	first := layers.LayerTypeIPv4
	if p.dst.Is6() {
		first = layers.LayerTypeIPv6
	}
	decoded := gopacket.NewPacket(b, first, gopacket.Default)
	if err := decoded.ErrorLayer(); err != nil {
		t.Fatal(err.Error())
	}
	var parts []gopacket.SerializableLayer
	for _, l := range decoded.Layers() {
		switch l := l.(type) {
		case *layers.UDP:
			_ = l.SetNetworkLayerForChecksum(decoded.NetworkLayer())
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(decoded.NetworkLayer())
			if !l.SYN || l.RST || l.FIN || l.PSH || l.URG || l.ACK != (len(l.Options) > 0) {
				t.Errorf("the segment is %+v", l)
			}
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(decoded.NetworkLayer())
		}
		if s, ok := l.(gopacket.SerializableLayer); ok {
			parts = append(parts, s)
		}
	}
	out := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, parts...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), b) {
		t.Errorf("protocol %d:\n% x, gopacket writes\n% x", p.proto, b, out.Bytes())
	}
}

// Whoever computes the checksum where it is said to be makes the packet that the sender wanted.
func TestLateChecksums(t *testing.T) {
	for _, c := range [][3]netip.Addr{{a4, b4, netip.MustParseAddr("10.0.0.77")}, {a6, b6, netip.MustParseAddr("fd00::77")}} {
		for _, what := range []string{"source", "destination", "port"} {
			src, dst, sport := c[0], c[1], uint16(20000)
			switch what {
			case "source":
				src = c[2]
			case "destination":
				dst = c[2]
			case "port":
				sport = lateSource(src, dst, 8080, 4)
			}
			final := ipPacket{src: src, dst: dst, proto: unix.IPPROTO_TCP, payload: tcp(src, dst, sport, 9090, "S", 1, 0, nil, []byte("data"))}
			shown, start, at, err := late(final, what, c[0], c[1], 8080)
			if err != nil {
				t.Fatal(err)
			}
			p, ok := parseIP(ethernet(broadcast, broadcast, map[bool]uint16{true: unix.ETH_P_IP, false: unix.ETH_P_IPV6}[dst.Is4()], shown))
			if !ok || p.src != c[0] || p.dst != c[1] || what == "port" && p.payload[3] != 8080&0xff {
				t.Errorf("%s: shown as %+v", what, p)
			}
			out := bytes.Clone(shown)
			binary.BigEndian.PutUint16(out[at:], fold(sum(out[start:])))
			p, _ = parseIP(ethernet(broadcast, broadcast, map[bool]uint16{true: unix.ETH_P_IP, false: unix.ETH_P_IPV6}[dst.Is4()], out))
			if p.proto == unix.IPPROTO_DSTOPTS {
				p.proto, p.payload = p.payload[0], p.payload[8:]
			}
			if p.src != src || p.dst != dst || binary.BigEndian.Uint16(p.payload[2:]) != 9090 {
				t.Errorf("%s: comes out as %+v", what, p)
			}
			again(t, ipPacket{src: p.src, dst: p.dst, proto: p.proto, payload: p.payload})
			if dst.Is4() && fold(sum(out[:20])) != 0 {
				t.Errorf("%s: the header's checksum is wrong", what)
			}
		}
	}
}

func TestTokensAreFoundInFrames(t *testing.T) {
	a := &attempt{}
	a.Token, a.to, a.own, a.Port, a.FromPort = "EVADE-0123456789", b4, a4, 8081, 20000
	frame := ethernet(broadcast, broadcast, unix.ETH_P_IP, ipPacket{src: b4, dst: a4, proto: unix.IPPROTO_UDP, payload: udp(b4, a4, 8081, 20000, []byte(a.Token))}.bytes())
	if found := tokens.FindAll(frame, -1); len(found) != 1 || string(found[0]) != a.Token {
		t.Errorf("%q", found)
	}
	if !a.answer(frame) || a.answered == "" {
		t.Error("an answer is not taken as one")
	}
	a.FromPort++
	if a.answer(frame) {
		t.Error("an answer to another port is taken as one")
	}
	if h := extension(17, 5, 2, 0, 0); len(h) != 8 || h[1] != 0 {
		t.Errorf("% x", h)
	}
	if h := extension(17, 0xc2, 4, 0, 1, 0, 0); len(h) != 8 || h[1] != 0 {
		t.Errorf("% x", h)
	}
	for n := range 20 {
		if h := extension(17, make([]byte, n)...); len(h)%8 != 0 || int(h[1]) != len(h)/8-1 {
			t.Errorf("%d bytes of options: % x", n, h)
		}
	}
}
