// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

const device = "eth0"

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// self tells the pod's addresses and who its gateways are.
func self() (job.Self, error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return job.Self{}, fmt.Errorf("find %s: %w", device, err)
	}
	s := job.Self{MAC: link.Attrs().HardwareAddr.String()}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.IsGlobalUnicast() {
			s.Addrs = append(s.Addrs, a.IP.String())
		}
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return s, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw != nil && (r.Dst == nil || r.Dst.IP.IsUnspecified()) {
			s.Gateways = append(s.Gateways, r.Gw.String())
		}
	}
	if mac, err := hardware(netip.MustParseAddr("192.0.2.1")); err == nil {
		s.GateMAC = mac.String()
	}
	return s, nil
}

// nextHop is who on the link a packet for an address is handed to.
func nextHop(to netip.Addr) (netip.Addr, error) {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return to, fmt.Errorf("find a route to %s: %w", to, err)
	}
	if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		return gw.Unmap(), nil
	}
	return to, nil
}

// hardware is the hardware address of the next hop. The kernel is made to ask for it by a datagram that nobody wants.
func hardware(to netip.Addr) (net.HardwareAddr, error) {
	hop, err := nextHop(to)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", device, err)
	}
	for range 10 {
		neighbours, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighbours {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == hop && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
		if c, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String()); err == nil {
			_, _ = c.Write([]byte("?")) // whether it passes doesn't matter
			c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, fmt.Errorf("nobody on the link has %s", hop)
}

// wire is a packet socket on the pod's interface.
type wire struct {
	fd, index int
	mac       net.HardwareAddr
}

func openWire() (*wire, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", device, err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	w := &wire{fd: fd, index: ifi.Index, mac: ifi.HardwareAddr}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}); err != nil {
		w.close()
		return nil, fmt.Errorf("bind a packet socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20) // as much as there is
	return w, nil
}

func (w *wire) close() { _ = unix.Close(w.fd) }

func (w *wire) send(frame []byte) error {
	err := unix.Sendto(w.fd, padTo(frame, 60), 0, &unix.SockaddrLinklayer{Ifindex: w.index})
	if err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

// padTo is what hardware does: an Ethernet frame has at least 60 bytes.
func padTo(frame []byte, n int) []byte {
	if len(frame) < n {
		frame = append(bytes.Clone(frame), make([]byte, n-len(frame))...)
	}
	return frame
}

// receive calls take for each frame that comes in, until it says stop or the time is over.
func (w *wire) receive(until time.Time, take func(frame []byte) (stop bool)) error {
	buf := make([]byte, 1<<16)
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return fmt.Errorf("set a time limit: %w", err)
		}
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive a frame: %w", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if take(buf[:n]) {
			return nil
		}
	}
}

func ethernet(dst, src net.HardwareAddr, kind uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	return append(append(b, byte(kind>>8), byte(kind)), payload...)
}
