// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
)

// PlanWriters are the tables that the planners write: what follows from the records alone.
type PlanWriters struct {
	Settings  Writer[string, Setting]
	Rules     Writer[uint32, Rule]
	Sets      Writer[uint32, uint64]
	Classes   Writer[uint32, bpf.ClassSets]
	Members   Writer[uint32, bpf.IdentityClass]
	Groups    Writer[bpf.GroupKey, bpf.GroupChunk]
	Subjects  Writer[bpf.SubjectKey, bpf.Subject]
	Addresses Writer[netip.Addr, bpf.Remote] // the node's own addresses cover them, see [NodeWriters]
	Ranges    Writer[netip.Prefix, bpf.Remote]
	Blocks    Writer[netip.Prefix, uint32]
	Guards    Writer[netip.Prefix, uint32]
	Pods      Writer[string, Pod]
	Frontends Writer[Frontend, bpf.Service]
	Slots     Writer[bpf.SlotKey, bpf.Backend]
	Peers     Writer[uint16, *topology.Peer]
	Routes    Writer[netip.Prefix, Route]
}

// ForPlan is for the planners alone.
func (t *Tables) ForPlan() PlanWriters {
	return PlanWriters{
		Settings:  writer[string, Setting]{t.Settings},
		Rules:     writer[uint32, Rule]{t.Rules},
		Sets:      writer[uint32, uint64]{t.Sets},
		Classes:   writer[uint32, bpf.ClassSets]{t.Classes},
		Members:   writer[uint32, bpf.IdentityClass]{t.Members},
		Groups:    writer[bpf.GroupKey, bpf.GroupChunk]{t.Groups},
		Subjects:  writer[bpf.SubjectKey, bpf.Subject]{t.Subjects},
		Addresses: lower[netip.Addr, bpf.Remote]{t.addresses},
		Ranges:    writer[netip.Prefix, bpf.Remote]{t.Ranges},
		Blocks:    writer[netip.Prefix, uint32]{t.Blocks},
		Guards:    writer[netip.Prefix, uint32]{t.Guards},
		Pods:      writer[string, Pod]{t.Pods},
		Frontends: writer[Frontend, bpf.Service]{t.Frontends},
		Slots:     writer[bpf.SlotKey, bpf.Backend]{t.Slots},
		Peers:     writer[uint16, *topology.Peer]{t.Peers},
		Routes:    writer[netip.Prefix, Route]{t.Routes},
	}
}

// NodeWriters are the tables about what is found on the node: its interfaces and its own addresses.
type NodeWriters struct {
	Hosts  Writer[netip.Addr, bpf.Remote] // into Addresses, whatever the planners want there
	Ifaces Writer[uint32, bpf.Iface]
	Locals Writer[netip.Addr, bpf.Local]
	Hooks  Writer[Hook, Attachment] // of pods and uplinks
}

// ForNode is for whoever looks at the node.
func (t *Tables) ForNode() NodeWriters {
	return NodeWriters{
		Hosts: upper[netip.Addr, bpf.Remote]{t.addresses}, Ifaces: writer[uint32, bpf.Iface]{t.Ifaces},
		Locals: writer[netip.Addr, bpf.Local]{t.Locals}, Hooks: writer[Hook, Attachment]{t.Hooks},
	}
}

// TunnelWriters are the tables about the tunnel device and the peers it knows.
type TunnelWriters struct {
	Tunnel    Writer[string, Device]
	PeerFlags Writer[uint16, bpf.Peer]
	Hooks     Writer[Hook, Attachment] // of the tunnel
}

// ForTunnel is for whoever drives the tunnel device.
func (t *Tables) ForTunnel() TunnelWriters {
	return TunnelWriters{
		Tunnel: writer[string, Device]{t.Tunnel}, PeerFlags: writer[uint16, bpf.Peer]{t.PeerFlags},
		Hooks: writer[Hook, Attachment]{t.Hooks},
	}
}
