// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pod connects one pod to its node by a veth pair.
//
// The pod has its addresses alone (/32, /128) and sends everything to a
// gateway that exists only as a fixed neighbour entry: the MAC address of the
// pair's host side. The node has one route per pod address. So there is no
// bridge, no ARP and no neighbour discovery between pod and node, and nothing
// that a pod could spoof there.
package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni/ipam"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
)

const (
	// RouteProtocol marks the plugin's routes on the node. The mesh's own
	// routes bear 77 and lie in another table.
	RouteProtocol = 78

	namePrefix  = "flp"
	aliasPrefix = "fairlead "
)

// The gateway that every pod sees.
var (
	Gateway4 = netip.MustParseAddr("169.254.1.1")
	Gateway6 = netip.MustParseAddr("fe80::1")
)

// Spec says what to connect.
type Spec struct {
	Owner         ipam.Owner
	NetNS         string // path of the pod's network namespace
	Addresses     []netip.Addr
	NodeAddresses []netip.Addr
	MTU           int
	BPFDir        string // of the programs that close the interface
}

// Interfaces are the two ends.
type Interfaces struct {
	HostName         string
	HostMAC, PodMAC  net.HardwareAddr
	HostMTU, PodMTU  int
	hostIndex, index int
}

// HostName is the name of the pair's host side: computed, so that a plugin
// that was killed finds again what it left.
func HostName(o ipam.Owner) string {
	sum := sha256.Sum256([]byte(o.ContainerID + "/" + o.IfName))
	return namePrefix + hex.EncodeToString(sum[:])[:15-len(namePrefix)]
}

// Connect makes the pair. A pair that an earlier, killed call made is made anew.
// The host side is closed before it is up: nothing comes from the pod or goes
// to it until the agent knows the pod.
func Connect(s Spec) (Interfaces, error) {
	if err := Disconnect(s.Owner, s.BPFDir); err != nil {
		return Interfaces{}, err
	}
	podNS, err := ns.GetNS(s.NetNS)
	if err != nil {
		return Interfaces{}, fmt.Errorf("opening the pod's network namespace: %w", err)
	}
	defer podNS.Close()
	ifs, err := makePair(s, podNS)
	if err == nil {
		err = firstdrop.Close(s.BPFDir, uint32(ifs.hostIndex))
	}
	if err == nil {
		err = hostSide(s, ifs)
	}
	if err == nil {
		err = podNS.Do(func(ns.NetNS) error { return podSide(s, ifs) })
	}
	if err != nil {
		return Interfaces{}, errors.Join(err, Disconnect(s.Owner, s.BPFDir))
	}
	return ifs, nil
}

// Disconnect removes the pair, and with it the node's routes; an absent one is
// no error. The pod's namespace isn't needed: both ends go together.
func Disconnect(o ipam.Owner, bpfDir string) error {
	link, err := netlink.LinkByName(HostName(o))
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) && !isNotFound(err) {
		return fmt.Errorf("removing the pod's interface %s: %w", HostName(o), err)
	}
	// What was pinned for it does nothing any more. A pin that stays is no
	// reason for the runtime to try again; the agent removes it some day.
	_ = firstdrop.Forget(bpfDir, uint32(link.Attrs().Index))
	return nil
}

// Owners lists whose pairs are on this node.
func Owners() ([]ipam.Owner, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the node's devices: %w", err)
	}
	var out []ipam.Owner
	for _, l := range all {
		rest, ok := strings.CutPrefix(l.Attrs().Alias, aliasPrefix)
		id, name, ok2 := strings.Cut(rest, " ")
		if o := (ipam.Owner{ContainerID: id, IfName: name}); ok && ok2 && l.Attrs().Name == HostName(o) {
			out = append(out, o)
		}
	}
	return out, nil
}

func makePair(s Spec, podNS ns.NetNS) (Interfaces, error) {
	name := HostName(s.Owner)
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, MTU: s.MTU},
		PeerName:      s.Owner.IfName,
		PeerMTU:       uint32(s.MTU),
		PeerNamespace: netlink.NsFd(podNS.Fd()),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return Interfaces{}, fmt.Errorf("making the veth pair %s with %s in the pod: %w", name, s.Owner.IfName, err)
	}
	host, err := netlink.LinkByName(name)
	if err != nil {
		return Interfaces{}, fmt.Errorf("looking up the pair's host side %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(host, aliasPrefix+s.Owner.ContainerID+" "+s.Owner.IfName); err != nil {
		return Interfaces{}, fmt.Errorf("marking %s as the pod's: %w", name, err)
	}
	ifs := Interfaces{HostName: name, HostMAC: host.Attrs().HardwareAddr, HostMTU: s.MTU, PodMTU: s.MTU, hostIndex: host.Attrs().Index}
	err = podNS.Do(func(ns.NetNS) error {
		peer, err := netlink.LinkByName(s.Owner.IfName)
		if err != nil {
			return fmt.Errorf("looking up %s in the pod: %w", s.Owner.IfName, err)
		}
		ifs.PodMAC, ifs.index = peer.Attrs().HardwareAddr, peer.Attrs().Index
		return nil
	})
	return ifs, err
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
