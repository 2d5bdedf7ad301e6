// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sendUnsummed sends a frame from the pod's interface and leaves a checksum to whoever sends it on: from start on, written offset
// bytes further. A pod needs NET_RAW for that and no more.
func sendUnsummed(frame []byte, start, offset int) error {
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return err
	}
	header := make([]byte, 10) // struct virtio_net_hdr
	header[0] = 1              // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(header[6:], uint16(start))
	binary.NativeEndian.PutUint16(header[8:], uint16(offset))
	return unix.Sendto(fd, slices.Concat(header, frame), 0, &unix.SockaddrLinklayer{Ifindex: eth.Attrs().Index})
}

// A checksum that is computed after a packet was judged must not be written into what was judged.
func TestChecksumsAreWrittenBehindWhatWasJudged(t *testing.T) {
	if has, err := HasKernelPackets(); err != nil || !has {
		t.Fatalf("this kernel doesn't show packets to programs (%v): test on 6.2 or newer", err)
	}
	eachAttachMode(t, func(t *testing.T, mode attachMode) {
		n := newNetNode(t, mode, 0, "10.1.0.10", "fd00:1::10")
		for family, c := range []cast{cast4, cast6} {
			pod, l3 := []netip.Addr{n.pod4, n.pod6}[family], []int{20, 40}[family]
			l4 := 14 + l3
			for _, tt := range []struct {
				name   string
				packet *packetSpec
				at     int // where it is written
				passes bool
			}{
				{"TCP's own", tcp(pod, 4000, c.friend, 80, "S"), l4 + 16, true},
				{"UDP's own", udp(pod, 4000, c.friend, 80), l4 + 6, true},
				{"one within a datagram", udp(pod, 4001, c.friend, 80), l4 + 8, true},
				{"the source", tcp(pod, 4002, c.friend, 80, "S"), 14 + []int{14, 22}[family], false},
				{"the destination", tcp(pod, 4003, c.friend, 80, "S"), 14 + []int{18, 38}[family], false},
				{"the source port", tcp(pod, 4004, c.friend, 80, "S"), l4, false},
				{"the port", tcp(pod, 4005, c.friend, 80, "S"), l4 + 2, false},
				{"the flags", tcp(pod, 4006, c.friend, 80, "S"), l4 + 12, false},
				{"UDP's length", udp(pod, 4007, c.friend, 80), l4 + 4, false},
			} {
				t.Run(fmt.Sprintf("%d %s", family, tt.name), func(t *testing.T) {
					before := n.metrics()
					inNS(t, n.podNS, func() error { return sendUnsummed(append(tt.packet.bytes(t), make([]byte, 32)...), tt.at-2, 2) })
					after := n.metrics()
					malformed := after[MetricIndex(ReasonMalformed, HookPodEgress)] - before[MetricIndex(ReasonMalformed, HookPodEgress)]
					passed := after[MetricIndex(ReasonForwarded, HookPodEgress)] - before[MetricIndex(ReasonForwarded, HookPodEgress)]
					if (passed > 0) != tt.passes || (malformed > 0) == tt.passes {
						t.Errorf("%d passed, %d dropped as malformed", passed, malformed)
					}
				})
			}
		}
	})
}
