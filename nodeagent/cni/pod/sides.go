// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostSide leads the node's packets for the pod into the pair.
func hostSide(s Spec, ifs Interfaces) error {
	link, err := netlink.LinkByIndex(ifs.hostIndex)
	if err != nil {
		return fmt.Errorf("looking up %s: %w", ifs.HostName, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", ifs.HostName, err)
	}
	for _, ip := range s.Addresses {
		if err := forwarding(ip); err != nil {
			return err
		}
		if err := fixNeighbour(ifs.hostIndex, ip, ifs.PodMAC); err != nil {
			return err
		}
		if err := netlink.RouteReplace(hostRoute(s, ifs.hostIndex, ip)); err != nil {
			return fmt.Errorf("setting the node's route to the pod's %s: %w", ip, err)
		}
	}
	return nil
}

func hostRoute(s Spec, device int, ip netip.Addr) *netlink.Route {
	r := &netlink.Route{
		LinkIndex: device, Dst: single(ip), Scope: scopeLink(ip), Protocol: RouteProtocol,
	}
	// Without it the kernel would speak from any address it likes, a CNI's
	// leftover bridge perhaps.
	i := slices.IndexFunc(s.NodeAddresses, func(a netip.Addr) bool { return a.Is4() == ip.Is4() })
	if i >= 0 && isLocal(s.NodeAddresses[i]) {
		r.Src = s.NodeAddresses[i].AsSlice()
	}
	return r
}

// podSide runs inside the pod's namespace.
func podSide(s Spec, ifs Interfaces) error {
	link, err := netlink.LinkByIndex(ifs.index)
	if err != nil {
		return fmt.Errorf("looking up %s in the pod: %w", s.Owner.IfName, err)
	}
	if slices.ContainsFunc(s.Addresses, netip.Addr.Is6) {
		if err := enableIPv6(s.Owner.IfName); err != nil {
			return err
		}
	}
	for _, ip := range s.Addresses {
		addr := &netlink.Addr{IPNet: single(ip)}
		if ip.Is6() {
			addr.Flags = unix.IFA_F_NODAD // nobody else can have it, and waiting would delay the pod
		}
		if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("giving %s to the pod: %w", ip, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up in the pod: %w", s.Owner.IfName, err)
	}
	for _, ip := range s.Addresses {
		if err := defaultRoute(ifs, ip); err != nil {
			return err
		}
	}
	return nil
}

func defaultRoute(ifs Interfaces, ip netip.Addr) error {
	gateway := Gateway(ip)
	if err := fixNeighbour(ifs.index, gateway, ifs.HostMAC); err != nil {
		return err
	}
	toGateway := &netlink.Route{LinkIndex: ifs.index, Dst: single(gateway), Scope: scopeLink(ip)}
	if err := netlink.RouteReplace(toGateway); err != nil {
		return fmt.Errorf("setting the pod's route to its gateway %s: %w", gateway, err)
	}
	everything := &netlink.Route{LinkIndex: ifs.index, Dst: everywhere(ip), Gw: gateway.AsSlice(), Src: ip.AsSlice()}
	if err := netlink.RouteReplace(everything); err != nil {
		return fmt.Errorf("setting the pod's default route via %s: %w", gateway, err)
	}
	return nil
}

func fixNeighbour(device int, ip netip.Addr, mac net.HardwareAddr) error {
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: family(ip), State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("fixing the MAC address of %s: %w", ip, err)
	}
	return nil
}

// forwarding makes the node a router for pods of ip's family. A read-only
// /proc is fine where it is one already.
func forwarding(ip netip.Addr) error {
	path := "/proc/sys/net/ipv4/ip_forward"
	if ip.Is6() {
		path = "/proc/sys/net/ipv6/conf/all/forwarding"
	}
	if err := enable(path, "1"); err != nil {
		return fmt.Errorf("making the node forward packets: %w", err)
	}
	return nil
}

func enableIPv6(ifName string) error {
	err := enable("/proc/sys/net/ipv6/conf/"+ifName+"/disable_ipv6", "0")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the pod shall have an IPv6 address, but the kernel has no IPv6")
	}
	if err != nil {
		return fmt.Errorf("enabling IPv6 on %s in the pod: %w", ifName, err)
	}
	return nil
}

func enable(path, value string) error {
	have, err := os.ReadFile(path)
	if err != nil || string(have) == value+"\n" {
		return err
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

// Gateway that a pod uses for ip's family.
func Gateway(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return Gateway4
	}
	return Gateway6
}

func isLocal(ip netip.Addr) bool {
	addrs, err := netlink.AddrList(nil, family(ip))
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(ip.AsSlice()) })
}

func single(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func everywhere(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, ip.BitLen()/8), Mask: net.CIDRMask(0, ip.BitLen())}
}

func scopeLink(ip netip.Addr) netlink.Scope {
	if ip.Is4() {
		return netlink.SCOPE_LINK
	}
	return netlink.SCOPE_UNIVERSE // IPv6 routes have no scope
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
