// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is an open handle on a network namespace. Its first error sticks, so
// that a caller can lay out a whole namespace and check once, with Err.
type NS struct {
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
	err  error
}

// Open opens the namespace; the empty name is the root namespace.
func Open(name string) (*NS, error) {
	ns, err := netns.Get()
	if name != "" {
		ns, err = netns.GetFromPath(Path(name))
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q: %w", name, err)
	}
	nl, err := netlink.NewHandleAt(ns)
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open netlink in namespace %q: %w", name, err)
	}
	return &NS{name: name, ns: ns, nl: nl}, nil
}

// Close releases the handle.
func (n *NS) Close() {
	n.nl.Close()
	_ = n.ns.Close()
}

// Err is the first error since Open.
func (n *NS) Err() error { return n.err }

func (n *NS) fail(err error, format string, args ...any) {
	if n.err == nil && err != nil {
		n.err = fmt.Errorf("namespace %q: %s: %w", n.name, fmt.Sprintf(format, args...), err)
	}
}

// Up sets the interface up.
func (n *NS) Up(link string) { n.with(link, "set up", n.nl.LinkSetUp) }

func (n *NS) with(link, what string, f func(netlink.Link) error) {
	if n.err != nil {
		return
	}
	l, err := n.nl.LinkByName(link)
	if err == nil {
		err = f(l)
	}
	n.fail(err, "%s %s", what, link)
}

// Bridge makes the bridge, up, unless it is there.
func (n *NS) Bridge(name string) {
	if n.err != nil {
		return
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, os.ErrExist) {
		n.fail(err, "add bridge %s", name)
	}
	n.Up(name)
}

// Veth makes a pair of interfaces, one here and one in peer, both up, unless
// the one here exists: a pair only ever disappears as a whole.
func (n *NS) Veth(name string, peer *NS, peerName string) {
	if n.err != nil {
		return
	}
	if _, err := n.nl.LinkByName(name); err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(int(peer.ns))}
		n.fail(n.nl.LinkAdd(pair), "add pair %s to %s in %q", name, peerName, peer.name)
	}
	n.Up(name)
	peer.Up(peerName)
	n.fail(peer.err, "peer")
}

// Enslave puts the interface into the bridge.
func (n *NS) Enslave(link, bridge string) {
	n.with(link, "enslave", func(l netlink.Link) error {
		br, err := n.nl.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", bridge, err)
		}
		return n.nl.LinkSetMaster(l, br)
	})
}

// Addr gives the interface its addresses. IPv6 ones are usable at once: no
// other host can hold an address of the lab.
func (n *NS) Addr(link string, prefixes ...netip.Prefix) {
	for _, p := range prefixes {
		n.with(link, "add address "+p.String()+" to", func(l netlink.Link) error {
			a := &netlink.Addr{IPNet: ipNet(p)}
			if p.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			return n.nl.AddrReplace(l, a)
		})
	}
}

// Route sends dst through the gateway; an invalid dst (the zero Prefix) means
// the default route of the gateway's family.
func (n *NS) Route(dst netip.Prefix, via netip.Addr) {
	if n.err != nil {
		return
	}
	if !dst.IsValid() {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if via.Is6() {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	route := &netlink.Route{Dst: ipNet(dst.Masked()), Gw: net.IP(via.AsSlice())}
	n.fail(n.nl.RouteReplace(route), "route %s via %s", dst, via)
}

// Delete removes the interface if it is there.
func (n *NS) Delete(link string) {
	l, err := n.nl.LinkByName(link)
	if err != nil {
		if !errors.As(err, new(netlink.LinkNotFoundError)) {
			n.fail(err, "find %s", link)
		}
		return
	}
	n.fail(n.nl.LinkDel(l), "delete %s", link)
}

// Sysctl sets kernel parameters of the namespace, named as in sysctl(8).
// Those that the kernel does not have are passed over if optional.
func (n *NS) Sysctl(optional bool, settings map[string]string) {
	if n.err != nil {
		return
	}
	err := In(n.name, func() error {
		for key, value := range settings {
			file := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
			err := os.WriteFile(file, []byte(value), 0o644)
			if err != nil && !(optional && errors.Is(err, os.ErrNotExist)) {
				return fmt.Errorf("set %s: %w", key, err)
			}
		}
		return nil
	})
	n.fail(err, "sysctl")
}

// Forwarding makes the namespace a router of both families that accepts
// packets whichever way they come.
func (n *NS) Forwarding() {
	n.Sysctl(false, map[string]string{
		"net.ipv4.ip_forward":             "1",
		"net.ipv4.conf.all.rp_filter":     "0",
		"net.ipv4.conf.default.rp_filter": "0",
		"net.ipv6.conf.all.forwarding":    "1",
		"net.ipv6.conf.default.accept_ra": "0",
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
