// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// node is the agent's node. Its devices are real, in a network namespace of its own, so that programs are attached to
// them; nobody is behind them. Which pod has which device is known here; an agent would ask the kernel about pods that run.
type node struct {
	address netip.Addr
	pods    map[netip.Addr]links.Link
	uplink  links.Uplink
	tunnel  *device
}

func newNode(cfg AgentConfig) (*node, error) {
	n := &node{address: cfg.Address, pods: map[netip.Addr]links.Link{}, tunnel: &device{node: cfg.Node, peers: map[kernelwg.Key]kernelwg.Peer{}}}
	for i, addr := range cfg.Pods {
		host, pod, err := veth(fmt.Sprintf("pod%d", i))
		if err != nil {
			return nil, err
		}
		n.pods[addr] = links.Link{Index: host.Index, Name: host.Name, PodMAC: pod.HardwareAddr, HostMAC: host.HardwareAddr}
	}
	up, _, err := veth("uplink")
	if err != nil {
		return nil, err
	}
	n.uplink = links.Uplink{Index: up.Index, Name: up.Name, MTU: up.MTU}
	tunnel, _, err := veth("tunnel")
	if err != nil {
		return nil, err
	}
	n.tunnel.index, n.tunnel.mtu = tunnel.Index, kernelwg.MTU(up.MTU)
	return n, nil
}

// veth makes a pair in this network namespace and brings it up.
func veth(name string) (host, peer *netlink.LinkAttrs, err error) {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("make the devices %s: %w", name, err)
	}
	var attrs []*netlink.LinkAttrs
	for _, end := range []string{name, name + "p"} {
		l, err := netlink.LinkByName(end)
		if err != nil {
			return nil, nil, fmt.Errorf("find %s: %w", end, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return nil, nil, fmt.Errorf("raise %s: %w", end, err)
		}
		attrs = append(attrs, l.Attrs())
	}
	return attrs[0], attrs[1], nil
}

// HostSide implements endpoints.Links.
func (n *node) HostSide(addr netip.Addr) (links.Link, error) {
	if l, ok := n.pods[addr]; ok {
		return l, nil
	}
	return links.Link{}, fmt.Errorf("%w for %s", links.ErrNotFound, addr)
}

// Interfaces implements endpoints.Links.
func (n *node) Interfaces() (map[uint32]bool, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := make(map[uint32]bool, len(all))
	for _, i := range all {
		out[uint32(i.Index)] = true
	}
	return out, nil
}

// LocalAddresses implements endpoints.Links.
func (n *node) LocalAddresses() ([]netip.Addr, error) { return []netip.Addr{n.address}, nil }

// Uplinks implements endpoints.Links.
func (n *node) Uplinks([]netip.Prefix) ([]links.Uplink, error) { return []links.Uplink{n.uplink}, nil }

// Watch implements endpoints.Links. Nothing changes at this node's devices.
func (n *node) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}

func (n *node) openWireGuard() (wireguard.Device, error) { return n.tunnel, nil }

// device keeps WireGuard's peers in memory: 25,000 peers of a real device would measure WireGuard.
type device struct {
	node       string
	index, mtu int

	mu    sync.Mutex
	peers map[kernelwg.Key]kernelwg.Peer
}

func (d *device) PublicKey() kernelwg.Key               { return kernelwg.Key(sha256.Sum256([]byte(d.node))) }
func (d *device) ListenPort() int                       { return kernelwg.DefaultPort }
func (d *device) Implementation() string                { return "in-memory WireGuard" }
func (d *device) Device() (ifindex, mtu int, err error) { return d.index, d.mtu, nil }
func (d *device) Save() error                           { return nil }

func (d *device) SetPeer(p kernelwg.Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[p.PublicKey] = p
	return nil
}

func (d *device) RemovePeer(key kernelwg.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.peers, key)
	return nil
}

func (d *device) Peers() ([]kernelwg.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]kernelwg.Status, 0, len(d.peers))
	for _, p := range d.peers {
		out = append(out, kernelwg.Status{Peer: p})
	}
	return out, nil
}
