// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// headersOf returns IP + TCP header lengths.
func (c cast) headersOf() int {
	if c.family == 2 {
		return 40
	}
	return 60
}

func TestMSSIsClampedIntoTheTunnel(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		limit := uint16(tunnelMTU - c.headersOf())
		for _, tc := range []struct {
			what      string
			flags     string
			mss, want uint16
			nops      int
		}{
			{"too big", "S", 1460, limit, 0},
			{"too big after a NOP", "S", 1460, limit, 1},
			{"too big after two", "S", 8960, limit, 2},
			{"SYN-ACK", "SA", 1460, limit, 0},
			{"small enough", "S", 1200, 1200, 0},
			{"just right", "S", limit, limit, 0},
		} {
			sport := uint16(4000) + uint16(tc.nops)
			r := f.egress(tcp(c.pod, sport, c.remote, 80, tc.flags).mss(tc.mss, tc.nops).bytes(t))
			r.tunnels(t, tc.what)
			if got := mssOf(t, r.data); got != tc.want {
				t.Errorf("%s: MSS %d, want %d", tc.what, got, tc.want)
			}
			checkTransportChecksum(t, tc.what, r.data)
		}
		sent := tcp(c.pod, 4000, c.friend, 80, "S").mss(1460, 0).bytes(t)
		if r := f.egress(sent); !bytes.Equal(r.data, sent) {
			t.Error("a SYN that stays in the cluster was changed")
		}
	})
}

func mssOf(t *testing.T, data []byte) uint16 {
	t.Helper()
	l := decode(data).Layer(layers.LayerTypeTCP)
	if l == nil {
		t.Fatalf("no TCP in %x", data)
	}
	for _, o := range l.(*layers.TCP).Options {
		if o.OptionType == layers.TCPOptionKindMSS {
			return binary.BigEndian.Uint16(o.OptionData)
		}
	}
	t.Fatal("no MSS option")
	return 0
}

// checkTransportChecksum serializes the packet anew with fresh checksums.
func checkTransportChecksum(t *testing.T, what string, data []byte) {
	t.Helper()
	p := decode(data)
	var ls []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		s, ok := l.(gopacket.SerializableLayer)
		if !ok { // ICMPv6 bodies and the like are payload to the checksum
			ls = append(ls, gopacket.Payload(l.LayerContents()), gopacket.Payload(l.LayerPayload()))
			break
		}
		ls = append(ls, s)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), data) {
		t.Errorf("%s: checksums wrong\n got %x\nwant %x", what, data, buf.Bytes())
	}
}

func TestTooBigIsAnsweredNotFragmented(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		full := tunnelMTU - c.headersOf() + 20 - 8 // payload of a full UDP packet
		fits := udp(c.pod, 4000, c.remote, 80).data(make([]byte, full)).bytes(t)
		f.egress(fits).tunnels(t, "exactly the MTU")

		payload := bytes.Repeat([]byte{0xab}, full+1)
		sent := udp(c.pod, 4000, c.remote, 80).data(payload).bytes(t)
		r := f.egress(sent)
		r.expect(t, "one byte more", tcActRedirect, HookPodEgress, ReasonTooBig)
		checkTooBig(t, c, r, sent)

		answer := r.data
		back := f.run(f.progs.PodIngress, answer, skb{Mark: r.mark})
		back.passes(t, "the answer reaches the pod", HookPodIngress, ReasonRelated)
		if back.mark != 0 {
			t.Errorf("mark %#x left on the answer", back.mark)
		}

		f.egress(udp(c.pod, 4000, c.friend, 80).data(payload).bytes(t)).
			passes(t, "not through the tunnel: not our MTU", HookPodEgress, ReasonForwarded)
	})
}

// checkTooBig looks at the ICMP answer as the pod's kernel would.
func checkTooBig(t *testing.T, c cast, r result, sent []byte) {
	t.Helper()
	if r.mark != MarkOwn {
		t.Errorf("mark %#x, want our own", r.mark)
	}
	if !bytes.Equal(r.data[:6], podMAC[:]) || !bytes.Equal(r.data[6:12], hostMAC[:]) {
		t.Errorf("MACs %x %x, want to the pod from the node", r.data[:6], r.data[6:12])
	}
	checkTransportChecksum(t, "answer", r.data)
	p := decode(r.data)
	var quoted []byte
	var mtu uint16
	if c.family == 2 {
		ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		icmp := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if ip.DstIP.String() != c.pod.String() || ip.SrcIP.String() != c.remote.String() || int(ip.Length) != len(r.data)-14 {
			t.Errorf("IP header %+v", ip)
		}
		if icmp.TypeCode.String() != "DestinationUnreachable(FragmentationNeeded)" {
			t.Errorf("ICMP %s", icmp.TypeCode)
		}
		quoted, mtu = icmp.Payload, icmp.Seq
	} else {
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if ip.DstIP.String() != c.pod.String() || ip.SrcIP.String() != c.remote.String() || int(ip.Length) != len(r.data)-54 {
			t.Errorf("IPv6 header %+v", ip)
		}
		if icmp.TypeCode.Type() != layers.ICMPv6TypePacketTooBig {
			t.Errorf("ICMPv6 %s", icmp.TypeCode)
		}
		quoted, mtu = icmp.Payload[4:], binary.BigEndian.Uint16(icmp.Payload[2:])
	}
	if mtu != tunnelMTU {
		t.Errorf("MTU %d, want %d", mtu, tunnelMTU)
	}
	if len(quoted) < 68 || !bytes.HasPrefix(sent[ethHeaderLength:], quoted) {
		t.Errorf("quotes %x of %x", quoted, sent[ethHeaderLength:])
	}
}

// A large packet made of small ones is fine; one made of large ones is not.
func TestSegmentsMustFitTheTunnel(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		mss := uint32(tunnelMTU - c.headersOf())
		big := tcp(c.pod, 4000, c.remote, 80, "A").data(make([]byte, 3000)).bytes(t)
		f.run(f.progs.PodEgress, big, skb{GSOSize: mss, GSOSegs: 3}).tunnels(t, "segments fit")
		f.run(f.progs.PodEgress, big, skb{GSOSize: mss + 1, GSOSegs: 3}).
			expect(t, "segments too big", tcActRedirect, HookPodEgress, ReasonTooBig)
		f.egress(big).expect(t, "one big packet", tcActRedirect, HookPodEgress, ReasonTooBig)
	})
}

func TestNoAnswerToErrorsAndLaterFragments(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		first := udp(c.pod, 4000, c.remote, 80).data(make([]byte, 64)).fragment(3, 0, true).bytes(t)
		f.egress(first).tunnels(t, "first fragment")
		later := udp(c.pod, 4000, c.remote, 80).data(make([]byte, 1480)).fragment(3, 72, false).bytes(t)
		f.egress(later).drops(t, "later fragment too big", HookPodEgress, ReasonTooBig)

		in := udp(c.remote, 6000, c.pod, 99).data(make([]byte, 1500))
		f.ingressFromTunnel(in.bytes(t))
		f.egress(unreachable(t, c.pod, c.remote, in).bytes(t)).drops(t, "error too big", HookPodEgress, ReasonTooBig)
	})
}
