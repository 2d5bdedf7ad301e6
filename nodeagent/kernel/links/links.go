// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package links finds devices: the host side of a pod's interface, whatever
// CNI made it, and the devices that lead out of the node.
//
// No CNI is asked. Every one of them must tell the kernel how to reach a pod,
// so the kernel is asked: the route to the pod's address names the device; if
// that is a bridge, the neighbour table knows the pod's MAC address and the
// bridge's forwarding database knows the port behind which it lives. An
// interface that our plugin closed says itself who is behind it.
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

// ErrNotFound tells that an address has no interface on this node that we can
// find, at least not yet. The error that wraps it says why.
var ErrNotFound = errors.New("no interface found")

// Link is the host side of a pod's interface.
type Link struct {
	Index int
	Name  string
	// PodMAC is the pod's own MAC address: where a packet delivered straight
	// to this interface must be sent to.
	PodMAC net.HardwareAddr
	// HostMAC is the address that the pod knows as its gateway's: the bridge's
	// where there is one, else this interface's.
	HostMAC net.HardwareAddr
	// Bridge is the index of the bridge that the interface is a port of, or 0.
	Bridge int
}

// HostSide finds the host side of the interface of the pod that has ip. It
// may wait up to a second for a silent pod to answer.
func HostSide(ip netip.Addr) (Link, error) {
	dev, err := routeDevice(ip)
	if err != nil {
		return Link{}, err
	}
	attrs := dev.Attrs()
	if dev.Type() == "bridge" {
		return behindBridge(ip, dev)
	}
	mac, err := neighbour(ip, attrs.Index, nil, func() (net.HardwareAddr, error) {
		mac, _ := marked(attrs.Alias, ip)
		return mac, nil
	})
	if err != nil {
		return Link{}, fmt.Errorf("asking %s for the MAC address of %s: %w", attrs.Name, ip, err)
	}
	return Link{Index: attrs.Index, Name: attrs.Name, PodMAC: mac, HostMAC: attrs.HardwareAddr}, nil
}

// routeDevice returns the device that leads to a pod of this node.
func routeDevice(ip netip.Addr) (netlink.Link, error) {
	found, err := netlink.RouteGet(ip.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH):
		return nil, fmt.Errorf("%w: the node has no route to %s", ErrNotFound, ip)
	case err != nil:
		return nil, fmt.Errorf("asking for the route to %s: %w", ip, err)
	case len(found) == 0:
		return nil, fmt.Errorf("%w: the node has no route to %s", ErrNotFound, ip)
	}
	r := found[0]
	if r.Type != unix.RTN_UNICAST {
		return nil, fmt.Errorf("%w: %s is no pod's but the node's own address", ErrNotFound, ip)
	}
	dev, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		return nil, lookupError(fmt.Sprintf("device %d", r.LinkIndex), err)
	}
	name := dev.Attrs().Name
	if r.Gw != nil {
		return nil, fmt.Errorf("%w: the route to %s leads over %s to the gateway %s, away from this node", ErrNotFound, ip, name, r.Gw)
	}
	if len(dev.Attrs().HardwareAddr) == 0 {
		return nil, fmt.Errorf("%w: the route to %s leads into the tunnel %s, away from this node", ErrNotFound, ip, name)
	}
	return dev, awayFromNode(ip, dev)
}

// A pod that isn't there yet may be covered by the on-link network of an
// uplink: its interface would then be taken for the pod's.
func awayFromNode(ip netip.Addr, dev netlink.Link) error {
	defaults, err := routeLinks(unix.RT_TABLE_MAIN, prefixes{})
	if err != nil {
		return err
	}
	if defaults[dev.Attrs().Index] {
		return fmt.Errorf("%w: the route to %s leads over the uplink %s, away from this node", ErrNotFound, ip, dev.Attrs().Name)
	}
	return nil
}

func behindBridge(ip netip.Addr, bridge netlink.Link) (Link, error) {
	attrs := bridge.Attrs()
	port := 0
	mac, err := neighbour(ip, attrs.Index, func(mac net.HardwareAddr) (ok bool, err error) {
		port, err = bridgePort(attrs.Index, mac)
		return port != 0, err
	}, func() (mac net.HardwareAddr, err error) {
		port, mac, err = markedPort(attrs.Index, ip)
		return mac, err
	})
	if err != nil {
		return Link{}, fmt.Errorf("looking behind the bridge %s for %s: %w", attrs.Name, ip, err)
	}
	dev, err := netlink.LinkByIndex(port)
	if err != nil {
		return Link{}, lookupError(fmt.Sprintf("port %d of bridge %s", port, attrs.Name), err)
	}
	return Link{
		Index: port, Name: dev.Attrs().Name, Bridge: attrs.Index,
		PodMAC: mac, HostMAC: attrs.HardwareAddr,
	}, nil
}

// bridgePort asks the forwarding database; 0 is no answer.
func bridgePort(bridge int, mac net.HardwareAddr) (int, error) {
	entries, err := netlink.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	if err != nil {
		return 0, fmt.Errorf("reading the forwarding database: %w", err)
	}
	for _, e := range entries {
		// Permanent entries are the ports' own addresses.
		if e.MasterIndex == bridge && e.State&netlink.NUD_PERMANENT == 0 && slices.Equal(e.HardwareAddr, mac) {
			return e.LinkIndex, nil
		}
	}
	return 0, nil
}

// A device that vanished between two questions was a pod that ended.
func lookupError(what string, err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return fmt.Errorf("%w: %s is gone", ErrNotFound, what)
	}
	return fmt.Errorf("looking up %s: %w", what, err)
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
