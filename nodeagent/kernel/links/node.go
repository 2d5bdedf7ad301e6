// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uplink is a device over which packets leave the node.
type Uplink struct {
	Index int
	Name  string
	MTU   int
	// L3 devices carry bare IP packets, without a link-layer header.
	L3 bool
}

// Uplinks returns the devices that bear one of the node's addresses, a default
// route, or a route to one of the guarded prefixes, ordered by index. Loopback
// and the devices of the given names (the tunnel) are none.
func Uplinks(nodeAddresses []netip.Addr, guarded []netip.Prefix, except ...string) ([]Uplink, error) {
	chosen, err := routeLinks(unix.RT_TABLE_UNSPEC, newPrefixes(guarded))
	if err != nil {
		return nil, err
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && slices.Contains(nodeAddresses, ip.Unmap()) {
			chosen[a.LinkIndex] = true
		}
	}
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the node's devices: %w", err)
	}
	var out []Uplink
	for _, l := range all {
		a := l.Attrs()
		if !chosen[a.Index] || a.Flags&net.FlagLoopback != 0 || slices.Contains(except, a.Name) {
			continue
		}
		out = append(out, Uplink{Index: a.Index, Name: a.Name, MTU: a.MTU, L3: len(a.HardwareAddr) == 0})
	}
	slices.SortFunc(out, func(a, b Uplink) int { return a.Index - b.Index })
	return out, nil
}

// ipvsDevice bears the addresses of services and load balancers where
// kube-proxy uses IPVS. They are not the node's.
const ipvsDevice = "kube-ipvs0"

// LocalAddresses returns all addresses of the node's own devices, ordered,
// without loopback's and IPv6's link-local ones. IPv4's may be services of the
// node, as NodeLocal DNSCache is. Broadcast addresses of its networks are among
// them, and the anycast addresses that it has as a router (RFC 4291, 2.6.1):
// what is sent there comes to the node's sockets, too.
func LocalAddresses() ([]netip.Addr, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	ipvs := 0
	if l, err := netlink.LinkByName(ipvsDevice); err == nil {
		ipvs = l.Attrs().Index
	} else if notFound := (netlink.LinkNotFoundError{}); !errors.As(err, &notFound) {
		return nil, fmt.Errorf("looking for %s: %w", ipvsDevice, err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ipvs != 0 && a.LinkIndex == ipvs {
			continue
		}
		if ip = ip.Unmap(); ip.IsLoopback() || ip.Is6() && ip.IsLinkLocalUnicast() {
			continue
		}
		out = append(out, ip)
	}
	shared, err := sharedAddresses(ipvs)
	if err != nil {
		return nil, err
	}
	out = append(out, shared...)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// sharedAddresses are those that the kernel delivers to this node among others, but for groups'.
func sharedAddresses(except int) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("listing the node's local routes: %w", err)
		}
		for _, r := range found {
			if r.Type != unix.RTN_BROADCAST && r.Type != unix.RTN_ANYCAST || r.Dst == nil || except != 0 && r.LinkIndex == except {
				continue
			}
			if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsLinkLocalUnicast() {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}

// routeLinks returns the devices of a table's default routes, and of its routes
// to the guarded prefixes. RT_TABLE_UNSPEC is all tables.
func routeLinks(table int, guarded prefixes) (map[int]bool, error) {
	out := map[int]bool{}
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := netlink.RouteListFiltered(f, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("listing the node's routes: %w", err)
		}
		for _, r := range found {
			if r.Type != unix.RTN_UNICAST || !leaves(r.Dst, guarded) {
				continue
			}
			for _, hop := range r.MultiPath {
				out[hop.LinkIndex] = true
			}
			if r.LinkIndex > 0 {
				out[r.LinkIndex] = true
			}
		}
	}
	return out, nil
}

// leaves says whether a route is the default or overlaps a guarded prefix.
func leaves(dst *net.IPNet, guarded prefixes) bool {
	if dst == nil {
		return true
	}
	addr, ok := netip.AddrFromSlice(dst.IP)
	ones, _ := dst.Mask.Size()
	return ok && (ones == 0 || guarded.overlap(netip.PrefixFrom(addr.Unmap(), ones)))
}

// prefixes are prefixes to compare many others with.
type prefixes struct {
	sorted []netip.Prefix
	exact  map[netip.Prefix]struct{}
}

func newPrefixes(list []netip.Prefix) prefixes {
	p := prefixes{sorted: slices.SortedFunc(slices.Values(list), netip.Prefix.Compare), exact: make(map[netip.Prefix]struct{}, len(list))}
	for _, prefix := range list {
		p.exact[prefix] = struct{}{}
	}
	return p
}

// overlap says whether one of them contains p or is contained in it.
func (l prefixes) overlap(p netip.Prefix) bool {
	for bits := p.Bits(); bits >= 0; bits-- {
		if _, ok := l.exact[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return true
		}
	}
	first, _ := slices.BinarySearchFunc(l.sorted, p.Masked().Addr(), func(have netip.Prefix, addr netip.Addr) int { return have.Addr().Compare(addr) })
	return first < len(l.sorted) && p.Contains(l.sorted[first].Addr())
}
