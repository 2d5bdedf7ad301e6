// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

// Kernel is the real driver of the node's devices.
type Kernel struct {
	// NodeAddresses tells the node's own addresses, whose devices are uplinks too.
	NodeAddresses func() []netip.Addr
	// Tunnel is the name of the tunnel device, which is no uplink.
	Tunnel string
}

// HostSide finds the host side of a pod's interface.
func (Kernel) HostSide(addr netip.Addr) (links.Link, error) { return links.HostSide(addr) }

// Interfaces are the indexes of all devices.
func (Kernel) Interfaces() (map[uint32]bool, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	out := make(map[uint32]bool, len(all))
	for _, i := range all {
		out[uint32(i.Index)] = true
	}
	return out, nil
}

// LocalAddresses are the addresses of the node's own devices.
func (Kernel) LocalAddresses() ([]netip.Addr, error) { return links.LocalAddresses() }

// Uplinks are the devices over which packets leave the node, those among them by which guarded prefixes are reached.
func (k Kernel) Uplinks(guarded []netip.Prefix) ([]links.Uplink, error) {
	return links.Uplinks(k.NodeAddresses(), guarded, k.Tunnel)
}

// Watch tells about changes.
func (Kernel) Watch(ctx context.Context, changed func()) error { return links.Watch(ctx, changed) }
