// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"
)

const (
	ip6Destination = 60
	ip6HeaderEnd   = ethHeaderLength + 40
	ip4HeaderEnd   = ethHeaderLength + 20
)

// onlyPort80 makes the pod's egress depend on the destination port, so that a
// verdict shows whether the transport header was found.
func (f *fixture) onlyPort80() {
	f.isolate(DirEgress, 0)
	f.rule(DirEgress, line{proto: 6, from: 80, rule: 1})
}

// insert puts bytes into a frame.
func insert(frame []byte, at int, b []byte) []byte {
	out := append([]byte(nil), frame[:at]...)
	return append(append(out, b...), frame[at:]...)
}

func TestPortsBehindIPv4Options(t *testing.T) {
	f, c := newFixture(t), cast4
	f.onlyPort80()
	for words := 1; words <= 10; words++ {
		frame := func(dport uint16) []byte {
			options := make([]byte, 4*words) // end of options, zeros
			out := insert(tcp(c.pod, 4000, c.friend, dport, "S").bytes(t), ip4HeaderEnd, options)
			out[ethHeaderLength] = 0x45 + byte(words)
			return out
		}
		f.egress(frame(80)).passes(t, "port 80", HookPodEgress, ReasonForwarded)
		f.egress(frame(81)).drops(t, "port 81", HookPodEgress, ReasonDefaultDenied)
	}
}

// extend puts destination options headers (each words*8+8 bytes) in front of
// an IPv6 packet's payload.
func extend(frame []byte, words ...int) []byte {
	next := frame[ethHeaderLength+6]
	var chain []byte
	for i, w := range words {
		h := make([]byte, 8*w+8)
		h[0], h[1] = ip6Destination, byte(w)
		if i == len(words)-1 {
			h[0] = next
		}
		chain = append(chain, h...)
	}
	out := insert(frame, ip6HeaderEnd, chain)
	out[ethHeaderLength+6] = ip6Destination
	binary.BigEndian.PutUint16(out[ethHeaderLength+4:], uint16(len(out)-ip6HeaderEnd))
	return out
}

func TestPortsBehindIPv6Extensions(t *testing.T) {
	f, c := newFixture(t), cast6
	f.onlyPort80()
	frame := func(dport uint16) []byte { return tcp(c.pod, 4000, c.friend, dport, "S").bytes(t) }
	for _, chain := range [][]int{{0}, {3}, {0, 0}, {1, 0, 2, 0, 1}, {200}} {
		f.egress(extend(frame(80), chain...)).passes(t, "port 80", HookPodEgress, ReasonForwarded)
		f.egress(extend(frame(81), chain...)).drops(t, "port 81", HookPodEgress, ReasonDefaultDenied)
	}
	f.egress(extend(frame(80), 0, 0, 0, 0, 0, 0, 0)).drops(t, "a chain that only hides", HookPodEgress, ReasonMalformed)
	f.egress(extend(frame(80), 255)).drops(t, "too far away to be honest", HookPodEgress, ReasonMalformed)
	cut := extend(frame(80), 3)
	f.egress(cut[:ip6HeaderEnd+16]).drops(t, "points past the end", HookPodEgress, ReasonMalformed)
}

func TestMalformedHeaders(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		end := ip4HeaderEnd
		if c.family == 10 {
			end = ip6HeaderEnd
		}
		malformed := func(what string, change func(frame []byte) []byte) {
			t.Helper()
			frame := change(tcp(c.pod, 4000, c.friend, 80, "S").bytes(t))
			f.egress(frame).drops(t, what, HookPodEgress, ReasonMalformed)
		}
		malformed("another version", func(b []byte) []byte { b[ethHeaderLength] ^= 0x20; return b })
		malformed("TCP header too short for itself", func(b []byte) []byte { b[end+12] = 0x40; return b })
		malformed("no transport header", func(b []byte) []byte { return b[:end] })
		malformed("the other family's ICMP", func(b []byte) []byte {
			if c.family == 10 {
				b[ethHeaderLength+6] = 1
			} else {
				b[ethHeaderLength+9] = 58
			}
			return b
		})
		if c.family == 2 {
			malformed("IP header too short for itself", func(b []byte) []byte { b[ethHeaderLength] = 0x44; return b })
		}
	})
}
