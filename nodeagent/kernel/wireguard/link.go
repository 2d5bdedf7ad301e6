// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Implementation is which WireGuard a node uses.
type Implementation string

// The two WireGuards.
const (
	Kernel    Implementation = "kernel WireGuard"
	Userspace Implementation = "userspace WireGuard"
)

const (
	linkType = "wireguard"
	// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
	addrGenModeNone = 1
)

// Detect tells which WireGuard this node uses. An existing device decides,
// so that agent and tunnel agree even if the kernel's module appears while
// they run; otherwise the kernel is tried with a device that lives for a moment.
func Detect(device string) (Implementation, error) {
	link, err := netlink.LinkByName(device)
	switch {
	case err == nil && link.Type() == linkType:
		return Kernel, nil
	case err == nil && link.Type() == "tuntap":
		return Userspace, nil
	case err == nil:
		return "", fmt.Errorf("device %s is there already and is no tunnel but of type %s: remove it or choose another name", device, link.Type())
	case !isNotFound(err):
		return "", fmt.Errorf("looking up device %s: %w", device, err)
	}
	// The name is random, since agent and tunnel may try at the same time and
	// each is process 1 of its own container.
	probe := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("flprobe%08x", rand.Uint32())}}
	err = netlink.LinkAdd(probe)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return Userspace, nil
	case err != nil:
		return "", fmt.Errorf("trying whether the kernel has WireGuard: %w", err)
	}
	if err := netlink.LinkDel(probe); err != nil {
		return "", fmt.Errorf("removing the device %s of the trial: %w", probe.Name, err)
	}
	return Kernel, nil
}

// ensureLink makes the kernel's device, or finds the userspace process's, and
// brings it into shape. The shape of a device that has it is not touched.
func ensureLink(cfg Config, impl Implementation) error {
	link, err := netlink.LinkByName(cfg.Device)
	if isNotFound(err) && impl == Kernel {
		err = netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: cfg.Device, MTU: cfg.MTU}})
		if err != nil {
			return fmt.Errorf("making the WireGuard device %s: %w", cfg.Device, err)
		}
		link, err = netlink.LinkByName(cfg.Device)
	}
	if isNotFound(err) {
		return fmt.Errorf("%w: there is no device %s (is the fairlead-tunnel pod of this node running?)", ErrNotReady, cfg.Device)
	}
	if err != nil {
		return fmt.Errorf("looking up device %s: %w", cfg.Device, err)
	}
	return ShapeLink(link, cfg.MTU)
}

// ShapeLink gives the tunnel device its MTU and brings it up.
func ShapeLink(link netlink.Link, mtu int) error {
	name := link.Attrs().Name
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("setting the MTU of %s to %d: %w", name, mtu, err)
		}
	}
	if link.Attrs().Flags&unix.IFF_UP != 0 {
		return nil
	}
	// A link-local address would only send router solicitations and the like
	// into the tunnel, where no peer owns them. Kernels without IPv6 refuse.
	if err := netlink.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil &&
		!errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("keeping link-local addresses off %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	// The peer's key proves the source of a packet from the tunnel. Where
	// strict reverse path filtering is the host's default, a packet would be
	// dropped whenever the way back isn't the tunnel; loose is then still
	// stricter than nothing. A read-only /proc leaves the host's choice.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("2"), 0o644)
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
