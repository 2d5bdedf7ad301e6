// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

// Foreign is a pod that another plugin connected.
type Foreign struct {
	NetNS, IfName string
	Addresses     []netip.Addr
	BPFDir        string
}

// ErrNoHostSide says that a pod's interface has no other end on the node at
// which its packets could be judged.
var ErrNoHostSide = errors.New("the pod's interface has no host side that programs could be attached to")

// CloseForeign closes the pod's interface, but for questions about neighbours,
// and marks it for the agent. It may be called again.
//
// Without answers to its questions the pod's first connections would fail with
// "no route to host" after three seconds, instead of being late.
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
	// A bridge is what the pod knows as its gateway.
	known := firstdrop.Pod{Addresses: f.Addresses, MAC: inner.Attrs().HardwareAddr, HostMAC: host.Attrs().HardwareAddr}
	if master := host.Attrs().MasterIndex; master != 0 {
		bridge, err := netlink.LinkByIndex(master)
		if err != nil {
			return fmt.Errorf("looking up the bridge of %s: %w", host.Attrs().Name, err)
		}
		known.HostMAC = bridge.Attrs().HardwareAddr
	}
	if err := firstdrop.LetNeighbours(f.BPFDir, uint32(host.Attrs().Index), known); err != nil {
		return err
	}
	// The agent may have removed that row when it looks for the pod.
	return links.Mark(host, f.Addresses, inner.Attrs().HardwareAddr)
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
