// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nstest gives tests network namespaces of their own. They have no
// names and live as long as the test, so nothing is left behind even by a
// test that is killed.
package nstest

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NS is a network namespace.
type NS struct{ handle netns.NsHandle }

// New makes a namespace with its loopback up.
func New(t testing.TB) *NS {
	t.Helper()
	var handle netns.NsHandle
	err := onThread(func() (err error) {
		handle, err = netns.New() // unshares this thread, which ends with its goroutine
		if err != nil {
			return fmt.Errorf("making a network namespace (as root?): %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	return &NS{handle: handle}
}

// Do runs f on a thread of its own inside the namespace. Processes that f
// starts and sockets that it opens belong to the namespace for good;
// goroutines that it starts do not.
func (n *NS) Do(t testing.TB, f func() error) {
	t.Helper()
	if err := n.Try(f); err != nil {
		t.Fatal(err)
	}
}

// Try is Do for code that may fail.
func (n *NS) Try(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("entering the network namespace: %w", err)
		}
		return f()
	})
}

// Path is a file that other processes can enter the namespace by.
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.handle)) }

// FD is the namespace for netlink attributes.
func (n *NS) FD() int { return int(n.handle) }

// onThread never gives its thread back: it may be in any namespace by then.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

// Veth joins two namespaces by a pair whose ends get the given names and
// addresses (in CIDR notation) and are brought up.
func Veth(t testing.TB, a *NS, aName string, aAddrs []string, b *NS, bName string, bAddrs []string) {
	t.Helper()
	a.Do(t, func() error {
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName},
			PeerName:  bName, PeerNamespace: netlink.NsFd(b.FD()),
		}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("making the veth pair %s-%s: %w", aName, bName, err)
		}
		return Up(aName, aAddrs...)
	})
	b.Do(t, func() error { return Up(bName, bAddrs...) })
}

// Up gives a device addresses and brings it up. Call it inside Do.
func Up(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("looking up %s: %w", name, err)
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", a, err)
		}
		addr.Flags = 0x02 // IFA_F_NODAD: an IPv6 address works at once
		if addr.IP.To4() != nil {
			addr.Flags = 0
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("giving %s to %s: %w", a, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

// Route adds a route over a device, via a gateway unless that is empty.
// Call it inside Do.
func Route(dst, device, via string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("looking up %s: %w", device, err)
	}
	ipnet, err := netlink.ParseIPNet(dst)
	if err != nil {
		return fmt.Errorf("parsing %s: %w", dst, err)
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipnet}
	if via != "" {
		r.Gw = net.ParseIP(via)
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("adding the route to %s over %s: %w", dst, device, err)
	}
	return nil
}
