// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sockets are the techniques that any pod may try.
var sockets = map[string]technique{
	"connect": connect, "datagram": datagram, "unconnected": unconnected, "fast open socket": fastOpenSocket, "mapped": mapped, "bind": bindForeign,
	"add address": addAddress, "socket": openSocket, "linked": linked, "source route socket": sourceRouteSocket,
}

// dialer sets options before it connects, from the wanted port if there is one.
func (a *attempt) dialer(network string, options ...func(fd int) error) *net.Dialer {
	d := &net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			for _, o := range options {
				err = errors.Join(err, o(int(fd)))
			}
		}); e != nil {
			return e
		}
		return err
	}}
	if a.Job.Detail == "from a port" {
		switch network {
		case "tcp":
			d.LocalAddr = &net.TCPAddr{Port: int(a.FromPort)}
		case "udp":
			d.LocalAddr = &net.UDPAddr{Port: int(a.FromPort)}
		}
	}
	return d
}

func (a *attempt) target() string { return netip.AddrPortFrom(a.to, a.Port).String() }

// connect opens a connection and sends the token. A pod that only sees a refusal has got through as well: somebody answered.
func connect(ctx context.Context, a *attempt) error {
	return a.converse(ctx, a.dialer("tcp"), "tcp", a.target())
}

// datagram sends one from a connected socket, and again if there is no answer.
func datagram(ctx context.Context, a *attempt) error {
	return a.converse(ctx, a.dialer("udp"), "udp", a.target())
}

func (a *attempt) converse(ctx context.Context, d *net.Dialer, network, target string) error {
	c, err := d.DialContext(ctx, network, target)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		a.answered = "refused by " + target
		return nil
	case isTimeout(err), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return nil
	case err != nil:
		return fmt.Errorf("connect to %s: %w", target, err)
	}
	defer c.Close()
	if network == "tcp" {
		a.answered = "connected to " + c.RemoteAddr().String()
	}
	what := a.Token + "\n"
	if a.Job.Port == 53 && network == "udp" {
		what = dnsQuery
	}
	for range 2 {
		if _, err := fmt.Fprint(c, what); err != nil {
			return nil //nolint:nilerr // an ICMP error came: nobody is there
		}
		_ = c.SetReadDeadline(time.Now().Add(patience / 2))
		n, err := c.Read(make([]byte, 2048))
		if err == nil && n > 0 {
			a.answered = "answered by " + c.RemoteAddr().String()
			return nil
		}
	}
	return nil
}

// dnsQuery asks for the root's name servers.
const dnsQuery = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// unconnected sends from a socket that belongs to no peer: services are translated then at each sending.
func unconnected(ctx context.Context, a *attempt) error {
	local := ":0"
	if a.Job.Detail == "from a port" {
		local = fmt.Sprintf(":%d", a.FromPort)
	}
	config := net.ListenConfig{Control: a.dialer("", allowBroadcast).Control}
	c, err := config.ListenPacket(ctx, "udp", local)
	if err != nil {
		return fmt.Errorf("open a socket at %s: %w", local, err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.WriteTo([]byte(a.Token), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.to, a.Port))); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience / 2))
		if _, from, err := c.ReadFrom(make([]byte, 2048)); err == nil {
			a.answered = "answered by " + from.String()
			return nil
		}
	}
	return nil
}

func allowBroadcast(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
}

// fastOpenSocket sends data with the SYN, as the kernel does it.
func fastOpenSocket(ctx context.Context, a *attempt) error {
	return a.converse(ctx, a.dialer("tcp", func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	}), "tcp", a.target())
}

// mapped calls an IPv4 address as an IPv6 one. Go's own dialer would call it by IPv4.
func mapped(_ context.Context, a *attempt) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	err = unix.Connect(fd, &unix.SockaddrInet6{Port: int(a.Port), Addr: a.to.As16()})
	switch {
	case err == nil:
		a.answered = "connected to " + a.target()
		_, err = unix.Write(fd, []byte(a.Token+"\n"))
		time.Sleep(patience / 4) // until it has arrived
	case errors.Is(err, unix.ECONNREFUSED):
		a.answered, err = "refused by "+a.target(), nil
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ETIMEDOUT):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", a.target(), err)
	}
	return nil
}

// bindForeign binds to somebody else's address.
func bindForeign(ctx context.Context, a *attempt) error {
	level, name := unix.IPPROTO_IP, unix.IP_FREEBIND
	switch {
	case a.Detail == "transparent" && a.to.Is4():
		name = unix.IP_TRANSPARENT
	case a.Detail == "transparent":
		level, name = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	case a.Detail != "free":
		return kindError("binding", a.Detail)
	case a.to.Is6():
		level, name = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	d := a.dialer("udp", func(fd int) error { return unix.SetsockoptInt(fd, level, name, 1) })
	d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.claim, a.FromPort))
	return a.converse(ctx, d, "udp", a.target())
}

// addAddress gives the interface somebody else's address.
func addAddress(ctx context.Context, a *attempt) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.claim.AsSlice(), Mask: net.CIDRMask(a.claim.BitLen(), a.claim.BitLen())}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add %s to %s: %w", a.claim, device, err)
	}
	defer func() { _ = netlink.AddrDel(link, addr) }()
	d := a.dialer("udp")
	d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.claim, a.FromPort))
	return a.converse(ctx, d, "udp", a.target())
}

// openSocket opens a socket of a kind that pods seldom have, and sends the token if that goes.
func openSocket(_ context.Context, a *attempt) error {
	family := unix.AF_INET
	if a.to.Is6() {
		family = unix.AF_INET6
	}
	kinds := map[string][3]int{
		"raw IP": {family, unix.SOCK_RAW, unix.IPPROTO_RAW}, "raw 253": {family, unix.SOCK_RAW, 253}, "ping": {family, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		"SCTP": {family, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, "UDP-Lite": {family, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
		"DCCP": {family, unix.SOCK_DCCP, unix.IPPROTO_DCCP}, "MPTCP": {family, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, "mark": {family, unix.SOCK_DGRAM, 0},
	}
	k, ok := kinds[a.Detail]
	if !ok {
		return kindError("socket", a.Detail)
	}
	if a.Detail == "ping" && a.to.Is6() {
		k[2] = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(k[0], k[1]|unix.SOCK_CLOEXEC, k[2])
	if err != nil {
		return fmt.Errorf("open a socket (%s): %w", a.Detail, err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	b := a.data()
	switch a.Detail {
	case "mark": // what the tunnel's program and ours mark packets with, and kube-proxy
		for _, mark := range []int{0x4000, 0x777, 0xfa1} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
				return fmt.Errorf("mark packets: %w", err)
			}
		}
	case "raw IP":
		b = a.packet(unix.IPPROTO_UDP, a.udp()).bytes()
	case "ping":
		_, b = icmp(a.own, a.to, map[bool]byte{true: 128, false: 8}[a.to.Is6()], 0, 1, a.data())
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(a.Port)}
	if a.to.Is6() {
		to = &unix.SockaddrInet6{Port: int(a.Port), Addr: a.to.As16()}
		if k[1] == unix.SOCK_RAW || a.Detail == "ping" {
			to = &unix.SockaddrInet6{Addr: a.to.As16()}
		}
	} else {
		to.(*unix.SockaddrInet4).Addr = a.to.As4()
	}
	if err := unix.Connect(fd, to); err != nil { // EINPROGRESS, too: that it takes longer than we wait
		if errors.Is(err, unix.ECONNREFUSED) {
			a.answered = "refused by " + a.target()
		}
		return nil //nolint:nilerr // it was tried
	}
	if k[1] == unix.SOCK_STREAM {
		a.answered = "connected to " + a.target()
	}
	if _, err := unix.Write(fd, b); err != nil {
		return nil //nolint:nilerr // it was tried
	}
	if n, err := unix.Read(fd, make([]byte, 2048)); err == nil && n > 0 {
		a.answered = "answered by " + a.target()
	}
	return nil
}

// linked connects to a link-local address from the own global one, which the kernel wouldn't choose by itself.
func linked(ctx context.Context, a *attempt) error {
	network := "tcp"
	d := a.dialer(network)
	if a.Detail == "global source" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.own, 0))
	}
	if !a.to.IsLinkLocalUnicast() {
		return fmt.Errorf("%s is no link-local address", a.to)
	}
	return a.converse(ctx, d, network, netip.AddrPortFrom(a.to.WithZone(device), a.Port).String())
}

// sourceRouteSocket asks the kernel for a source route.
func sourceRouteSocket(ctx context.Context, a *attempt) error {
	target := netip.AddrPortFrom(a.over, a.Port).String()
	d := a.dialer("udp", func(fd int) error {
		if a.to.Is4() {
			route := string(padded(append([]byte{0x83, 7, 4}, a.to.AsSlice()...), 4))
			return unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, route)
		}
		header := string(routing(0, 4, 1, a.to))
		return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, header)
	})
	err := a.converse(ctx, d, "udp", target)
	if err != nil && strings.Contains(err.Error(), "invalid argument") {
		return fmt.Errorf("the kernel takes no such route: %w", err)
	}
	return err
}
