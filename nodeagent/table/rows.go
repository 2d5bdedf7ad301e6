// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Frontend is an address that the socket hook translates.
type Frontend struct {
	Addr  netip.Addr
	Port  uint16
	Proto uint8
}

func (f Frontend) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(f.Addr, f.Port), ProtocolName(f.Proto))
}

// Pod is a pod of this node. Its addresses are a comma-separated, sorted list, so that rows can be compared.
type Pod struct {
	Addresses string
	Identity  uint32
}

// Addrs parses the pod's addresses.
func (p Pod) Addrs() []netip.Addr {
	var out []netip.Addr
	for s := range strings.SplitSeq(p.Addresses, ",") {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// JoinAddrs is the inverse of Addrs.
func JoinAddrs(addrs []netip.Addr) string {
	parts := make([]string, len(addrs))
	for i, a := range addrs {
		parts[i] = a.String()
	}
	return strings.Join(parts, ",")
}

// Peer is another node as the tunnel knows it. AllowedIPs is a comma-separated, sorted list.
type Peer struct {
	Cluster    string
	Node       string
	PublicKey  string // base64; empty: not ready, nothing may be sent there
	Endpoint   netip.AddrPort
	AllowedIPs string
}

// Prefixes parses AllowedIPs.
func (p Peer) Prefixes() []netip.Prefix {
	var out []netip.Prefix
	for s := range strings.SplitSeq(p.AllowedIPs, ",") {
		if a, err := netip.ParsePrefix(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// JoinPrefixes is the inverse of Prefixes.
func JoinPrefixes(prefixes []netip.Prefix) string {
	parts := make([]string, len(prefixes))
	for i, p := range prefixes {
		parts[i] = p.String()
	}
	return strings.Join(parts, ",")
}

// Route of the host to a prefix.
type Route struct {
	Via     string     // "tunnel" or "gateway", as in mesh/topology
	Gateway netip.Addr // only with gateway
	Source  netip.Addr // the node's address to speak from; invalid: the kernel's choice
}

// Setting is what the cluster wants of every node.
type Setting struct {
	ClusterID  uint32
	Encryption bool
	Strict     bool
}

// Device is the tunnel's.
type Device struct {
	Ifindex uint32
	MTU     uint32
}

// Role is what an interface is to the datapath.
type Role string

// The roles: the host's side of a pod's interface, the tunnel device, a device towards other nodes.
const (
	RolePod    Role = "pod"
	RoleTunnel Role = "tunnel"
	RoleUplink Role = "uplink"
)

// Hook is an interface that is to bear the programs of a role.
type Hook struct {
	Role    Role
	Ifindex uint32
}

// Attachment tells about a hook. What an earlier run attached has no name: it differs, so it is attached once more,
// which swaps in this run's programs.
type Attachment struct{ Name string }

// Rule tells what a rule id in the kernel stands for.
type Rule struct {
	Policy      string // record key of the policy; empty for built-in rules
	Kind        string
	Namespace   string
	Name        string
	Direction   bpf.Direction
	Description string // e.g. "ingress default deny"
	Source      string
	URL         string
	Revision    string
	Path        string
}

// ProtocolName writes an IP protocol as policies do.
func ProtocolName(proto uint8) string {
	switch proto {
	case 0:
		return "any"
	case 1:
		return "ICMP"
	case 6:
		return "TCP"
	case 17:
		return "UDP"
	case 58:
		return "ICMPv6"
	case 132:
		return "SCTP"
	}
	return fmt.Sprintf("proto-%d", proto)
}
