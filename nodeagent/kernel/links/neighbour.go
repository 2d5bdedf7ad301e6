// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// A pod on this node answers within a millisecond, but one that just
	// starts may not hear the first questions; the kernel itself would ask
	// again after a second only.
	attempts     = 5
	attemptFor   = 200 * time.Millisecond
	resolveEvery = 10 * time.Millisecond

	usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE |
		netlink.NUD_PERMANENT | netlink.NUD_NOARP
	fixed = netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// neighbour returns the MAC address behind ip on a device. If check is given
// it must approve of the address; one that isn't approved is taken for the
// leftover of a former pod, and the kernel is made to ask again, unless
// otherwise knows the address.
func neighbour(
	ip netip.Addr, device int, check func(net.HardwareAddr) (bool, error), otherwise func() (net.HardwareAddr, error),
) (net.HardwareAddr, error) {
	entry, ok, err := lookup(ip, device, check)
	if err != nil || ok {
		return entry.HardwareAddr, err
	}
	if mac, err := otherwise(); err != nil || mac != nil {
		return mac, err
	}
	for range attempts {
		if err := provoke(ip, device, entry); err != nil {
			return nil, err
		}
		for end := time.Now().Add(attemptFor); time.Now().Before(end); time.Sleep(resolveEvery) {
			entry, ok, err = lookup(ip, device, check)
			if err != nil || ok {
				return entry.HardwareAddr, err
			}
		}
	}
	if len(entry.HardwareAddr) > 0 {
		return nil, fmt.Errorf("%w: its MAC address %s is behind none of the ports", ErrNotFound, entry.HardwareAddr)
	}
	return nil, fmt.Errorf("%w: nobody answers for the address", ErrNotFound)
}

func lookup(ip netip.Addr, device int, check func(net.HardwareAddr) (bool, error)) (netlink.Neigh, bool, error) {
	entries, err := netlink.NeighList(device, family(ip))
	if err != nil {
		return netlink.Neigh{}, false, fmt.Errorf("reading the neighbour table: %w", err)
	}
	for _, e := range entries {
		if addr, ok := netip.AddrFromSlice(e.IP); !ok || addr.Unmap() != ip {
			continue
		}
		if e.State&usable == 0 || len(e.HardwareAddr) == 0 {
			return e, false, nil
		}
		if check == nil {
			return e, true, nil
		}
		ok, err := check(e.HardwareAddr)
		return e, ok, err
	}
	return netlink.Neigh{}, false, nil
}

// provoke makes the pod speak, so that neighbour table and forwarding database
// learn of it. A stale entry would be believed for seconds before it is asked
// for again, so it goes first. A fixed one isn't ours to remove: there a
// datagram to the discard port makes the pod answer (with an ICMP error).
func provoke(ip netip.Addr, device int, entry netlink.Neigh) error {
	if entry.State&fixed != 0 {
		return datagram(ip, device)
	}
	if entry.IP != nil {
		entry.Family = family(ip)
		if err := netlink.NeighDel(&entry); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forgetting the stale neighbour entry of %s: %w", ip, err)
		}
	}
	if ip.Is6() {
		// The kernel asks on its own only from a link-local address that
		// passed duplicate detection, which a young bridge's hasn't yet.
		return datagram(ip, device)
	}
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: family(ip), IP: ip.AsSlice(),
		State: netlink.NUD_NONE, Flags: netlink.NTF_USE,
	})
	if err != nil {
		return fmt.Errorf("starting the address resolution: %w", err)
	}
	return nil
}

func datagram(ip netip.Addr, device int) error {
	fd, err := unix.Socket(family(ip), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, device); err != nil {
		return fmt.Errorf("binding a socket to device %d: %w", device, err)
	}
	const discard = 9
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: discard, Addr: as4(ip)}
	if ip.Is6() {
		to = &unix.SockaddrInet6{Port: discard, Addr: ip.As16()}
	}
	if err := unix.Sendto(fd, nil, 0, to); err != nil {
		return fmt.Errorf("sending a datagram: %w", err)
	}
	return nil
}

func as4(ip netip.Addr) (out [4]byte) {
	if ip.Is4() {
		out = ip.As4()
	}
	return out
}
