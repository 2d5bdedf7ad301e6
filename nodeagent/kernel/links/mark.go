// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// A closed interface answers no question, so whoever closes one says who is behind it: in the interface's alias, which lives
// as long as the interface. What a CNI has written there stays in front of it.
const (
	markPrefix    = "fairlead-pod "
	markSeparator = "; "
	maxAlias      = 255 // IFALIASZ of the kernel, without the end
)

// Mark writes into the alias of a host side which pod is behind it.
func Mark(link netlink.Link, addrs []netip.Addr, podMAC net.HardwareAddr) error {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	alias, _, _ := strings.Cut(link.Attrs().Alias, markPrefix)
	if alias = strings.TrimSuffix(alias, markSeparator); alias != "" {
		alias += markSeparator
	}
	alias += markPrefix + podMAC.String() + " " + strings.Join(texts, " ")
	if len(alias) > maxAlias {
		return fmt.Errorf("marking %s as the pod's: its alias would have %d characters, %d are possible", link.Attrs().Name, len(alias), maxAlias)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("marking %s as the pod's: %w", link.Attrs().Name, err)
	}
	return nil
}

// marked returns the MAC address of the pod behind a host side, if that is marked as the one of ip.
func marked(alias string, ip netip.Addr) (net.HardwareAddr, bool) {
	_, mark, found := strings.Cut(alias, markPrefix)
	fields := strings.Fields(mark)
	if !found || len(fields) == 0 {
		return nil, false
	}
	mac, err := net.ParseMAC(fields[0])
	if err != nil {
		return nil, false
	}
	for _, f := range fields[1:] {
		if a, err := netip.ParseAddr(f); err == nil && a == ip {
			return mac, true
		}
	}
	return nil, false
}

// markedPort looks for the port of a bridge that is marked as the one of ip. Of two, the younger is the pod's: the other one's
// pod is about to go, or its address would not have been given away.
func markedPort(bridge int, ip netip.Addr) (port int, mac net.HardwareAddr, err error) {
	all, err := netlink.LinkList()
	if err != nil {
		return 0, nil, fmt.Errorf("listing the node's devices: %w", err)
	}
	for _, l := range all {
		a := l.Attrs()
		if m, ok := marked(a.Alias, ip); ok && a.MasterIndex == bridge && a.Index > port {
			port, mac = a.Index, m
		}
	}
	return port, mac, nil
}
