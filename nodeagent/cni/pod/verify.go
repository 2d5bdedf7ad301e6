// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
)

// Verify tells what of a connection is missing.
func Verify(s Spec) error {
	host, err := netlink.LinkByName(HostName(s.Owner))
	if err != nil {
		return fmt.Errorf("the pair's host side %s: %w", HostName(s.Owner), err)
	}
	if err := firstdrop.Check(s.BPFDir, uint32(host.Attrs().Index)); err != nil {
		return err
	}
	for _, ip := range s.Addresses {
		if err := hasRoute(host, ip, single(ip).String()); err != nil {
			return fmt.Errorf("on the node: %w", err)
		}
	}
	podNS, err := ns.GetNS(s.NetNS)
	if err != nil {
		return fmt.Errorf("opening the pod's network namespace: %w", err)
	}
	defer podNS.Close()
	return podNS.Do(func(ns.NetNS) error {
		if err := verifyPodSide(s); err != nil {
			return fmt.Errorf("in the pod: %w", err)
		}
		return nil
	})
}

func verifyPodSide(s Spec) error {
	link, err := netlink.LinkByName(s.Owner.IfName)
	if err != nil {
		return fmt.Errorf("interface %s: %w", s.Owner.IfName, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", s.Owner.IfName, err)
	}
	for _, ip := range s.Addresses {
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(ip.AsSlice()) }) {
			return fmt.Errorf("%s doesn't have the address %s", s.Owner.IfName, ip)
		}
		if err := hasRoute(link, ip, everywhere(ip).String()); err != nil {
			return err
		}
	}
	return nil
}

func hasRoute(link netlink.Link, ip netip.Addr, dst string) error {
	routes, err := netlink.RouteList(link, family(ip))
	if err != nil {
		return fmt.Errorf("listing the routes of %s: %w", link.Attrs().Name, err)
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.String() == dst || r.Dst == nil && dst == everywhere(ip).String() {
			return nil
		}
	}
	return fmt.Errorf("there is no route to %s over %s", dst, link.Attrs().Name)
}
