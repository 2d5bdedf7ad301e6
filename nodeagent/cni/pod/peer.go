// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

// Foreign is a pod that another plugin connected.
type Foreign struct {
	NetNS, IfName string
	Addresses     []netip.Addr
	Gateways      []netip.Addr
	BPFDir        string
}

// ErrNoHostSide says that a pod's interface has no other end on the node at
// which its packets could be judged.
var ErrNoHostSide = errors.New("the pod's interface has no host side that programs could be attached to")

// CloseForeign closes the pod's interface, and marks it for the agent. It may
// be called again.
func CloseForeign(f Foreign) error {
	podNS, err := ns.GetNS(f.NetNS)
	if err != nil {
		return fmt.Errorf("opening the pod's network namespace: %w", err)
	}
	defer podNS.Close()
	host, inner, err := peers(podNS, f.IfName)
	if err != nil {
		return err
	}
	if err := firstdrop.Close(f.BPFDir, uint32(host.Attrs().Index)); err != nil {
		return err
	}
	if err := links.Mark(host, f.Addresses, inner.Attrs().HardwareAddr); err != nil {
		return err
	}
	known, err := neighbours(host, f.Gateways)
	if err != nil {
		return err
	}
	return podNS.Do(func(ns.NetNS) error { return introduce(inner.Attrs().Index, known) })
}

// VerifyForeign says whether the pod's interface bears our programs.
func VerifyForeign(f Foreign) error {
	podNS, err := ns.GetNS(f.NetNS)
	if err != nil {
		return fmt.Errorf("opening the pod's network namespace: %w", err)
	}
	defer podNS.Close()
	host, _, err := peers(podNS, f.IfName)
	if err != nil {
		return err
	}
	return firstdrop.Check(f.BPFDir, uint32(host.Attrs().Index))
}

// peers finds the two ends. The kernel is asked, not the result of the plugin
// before: not all of them list the host side, and some list more than that.
func peers(podNS ns.NetNS, ifName string) (host, inner netlink.Link, err error) {
	err = podNS.Do(func(ns.NetNS) error {
		inner, err = netlink.LinkByName(ifName)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("looking up %s in the pod: %w", ifName, err)
	}
	if t := inner.Type(); t != "veth" && t != "netkit" {
		return nil, nil, fmt.Errorf("%w: %s is a device of type %s, not veth", ErrNoHostSide, ifName, t)
	}
	host, err = netlink.LinkByIndex(inner.Attrs().ParentIndex)
	if err != nil && !isNotFound(err) {
		return nil, nil, fmt.Errorf("looking up the host side of %s: %w", ifName, err)
	}
	// The other end may be in a third namespace, where another device of this one has the same number.
	if err != nil || host.Type() != inner.Type() || host.Attrs().ParentIndex != inner.Attrs().Index || host.Attrs().NetNsID < 0 {
		return nil, nil, fmt.Errorf("%w: the other end of %s is not on the node", ErrNoHostSide, ifName)
	}
	return host, inner, nil
}

// neighbours are the MAC addresses of the pod's gateways, as far as they are
// the node's own: those of a bridge that has such an address, or of the host
// side where there is no bridge.
func neighbours(host netlink.Link, gateways []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
	out := map[netip.Addr]net.HardwareAddr{}
	for _, gateway := range gateways {
		if host.Attrs().MasterIndex == 0 {
			out[gateway] = host.Attrs().HardwareAddr
			continue
		}
		bridge, err := netlink.LinkByIndex(host.Attrs().MasterIndex)
		if err != nil {
			return nil, fmt.Errorf("looking up the bridge of %s: %w", host.Attrs().Name, err)
		}
		addrs, err := netlink.AddrList(bridge, family(gateway))
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %s: %w", bridge.Attrs().Name, err)
		}
		for _, a := range addrs {
			if a.IP.Equal(gateway.AsSlice()) {
				out[gateway] = bridge.Attrs().HardwareAddr
			}
		}
	}
	return out, nil
}

// introduce gives the pod its gateways' MAC addresses, since nobody answers it
// while its interface is closed: an address that nobody answers for makes a
// connection fail within three seconds, while a packet that is lost is sent
// again. The entries age like those that the pod would have learnt.
func introduce(device int, known map[netip.Addr]net.HardwareAddr) error {
	for ip, mac := range known {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: device, Family: family(ip), State: netlink.NUD_REACHABLE, IP: ip.AsSlice(), HardwareAddr: mac,
		})
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("telling the pod the MAC address of its gateway %s: %w", ip, err)
		}
	}
	return nil
}
