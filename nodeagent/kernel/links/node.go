// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links

import (
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

// Uplinks returns the devices that carry a default route or one of the node's
// addresses, ordered by index. Loopback and the devices of the given names
// (the tunnel) are none.
func Uplinks(nodeAddresses []netip.Addr, except ...string) ([]Uplink, error) {
	chosen, err := defaultRouteLinks()
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

// LocalAddresses returns all addresses of the node's own devices, ordered,
// without loopback's and link-local ones.
func LocalAddresses() ([]netip.Addr, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		if ip = ip.Unmap(); ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		out = append(out, ip)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// defaultRouteLinks returns the devices of the main table's default routes.
func defaultRouteLinks() (map[int]bool, error) {
	out := map[int]bool{}
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("listing the main table's routes: %w", err)
		}
		for _, r := range found {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones > 0 {
					continue
				}
			}
			if r.Type != unix.RTN_UNICAST {
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
