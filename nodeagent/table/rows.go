// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
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

// Pod is a pod of this node. A record is never changed, so that rows are equal if they have the same one.
type Pod struct{ *record.Endpoint }

// Route of the host to a prefix.
type Route struct {
	Via     string     // "tunnel" or "gateway", as in mesh/topology
	Gateway netip.Addr // only with gateway
	Source  netip.Addr // the node's address to speak from; invalid: the kernel's choice
}

// Setting is what the cluster wants of every node.
type Setting struct {
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
