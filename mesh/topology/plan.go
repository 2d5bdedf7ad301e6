// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package topology decides how one node reaches every other node and pod of the mesh.
//
//	clusters, nodes, endpoints ──► Peers      WireGuard peers and what each may send (AllowedIPs)
//	                               Addresses  who has an address, and whether it lies behind the tunnel
//	                               CIDRs      the same for ranges, for addresses nobody has yet
//	                               Routes     for the host's own processes, and pods of our own CNI
//
// There are two ways to the same answer. Compute plans the whole world at once and is easy to follow: it says what is
// right. A Planner is given one change at a time and emits what changes for it, because a mesh of 25,000 nodes and
// 250,000 pods is planned on each node; a property test holds it equal to Compute. The package is pure.
package topology

import (
	"net/netip"
	"strconv"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Node is a node of a cluster.
type Node struct {
	Cluster string
	*record.Node
}

// Endpoint is a pod of a cluster.
type Endpoint struct {
	Cluster string
	*record.Endpoint
}

// Input is what a plan depends on. A cluster's nodes have different names, and so have a namespace's endpoints: they are
// record keys.
type Input struct {
	Self      string // this node's name
	Cluster   string // its cluster, and by the record of that what is encrypted
	Clusters  map[string]*record.Cluster
	Nodes     []Node
	Endpoints []Endpoint

	OwnCNI bool // pods' routes between nodes are ours to set

	// PreviousIndexes of peers by PeerKey, so that a peer keeps its index while others come and go.
	PreviousIndexes map[string]uint16
	// Keyed are nodes of the cluster, by name, that have published a key, now or before.
	Keyed map[string]bool
}

// Plan is how this node reaches the mesh.
type Plan struct {
	Peers    []Peer // sorted by cluster and node, this node's cluster first
	IPCache  map[netip.Addr]IPCacheEntry
	CIDRs    map[netip.Prefix]IPCacheEntry
	Routes   []Route // sorted by destination
	Problems []string
}

// Indexes returns the peers' indexes for the next plan's PreviousIndexes.
func (p *Plan) Indexes() map[string]uint16 {
	out := make(map[string]uint16, len(p.Peers))
	for _, peer := range p.Peers {
		out[PeerKey(peer.Cluster, peer.Node)] = peer.Index
	}
	return out
}

// Peer is another node with a key. AllowedIPs of different peers never overlap: they prove where a packet came from.
// A Peer is not changed once it is made.
type Peer struct {
	Cluster    string
	Node       string
	PublicKey  record.PublicKey
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix // sorted
	Index      uint16         // never 0
}

// PeerKey names a peer.
func PeerKey(cluster, node string) string { return cluster + "/" + node }

// UnknownPeerKey stands for a peer of which only the index is remembered. No peer has it.
func UnknownPeerKey(index uint16) string { return "?/" + strconv.Itoa(int(index)) }

// Flags say how an address is reached. They have the values of the datapath's FL_REMOTE_* (bpf/include/fairlead/types.h).
type Flags uint8

// What an address can be.
const (
	Tunnel        Flags = 1 << 0 // packets to it go through the tunnel or not at all
	RequireTunnel Flags = 1 << 1 // packets from it are believed only if they came through the tunnel
	NodeAddress   Flags = 1 << 3 // a node's own address
	ServiceRange  Flags = 1 << 4 // ranges only: addresses of services
	// Unvouched is for ranges only, of the own cluster's pods: nodes may have addresses in it as well, so one that nobody
	// vouches for is not dropped. To policies it is unknown: no rule about some peers allows it, and all of them deny it.
	Unvouched Flags = 1 << 5
)

// Has says whether all of some flags are set.
func (f Flags) Has(other Flags) bool { return f&other == other }

// IPCacheEntry says who has an address and how to reach it. It takes eight bytes, for there are many.
type IPCacheEntry struct {
	Identity  uint32
	Peer      uint16 // index of the node's peer; 0: it has none (yet)
	Flags     Flags
	ClusterID uint8
}

// Via says how a route leaves the node.
type Via string

// Ways out of a node.
const (
	ViaTunnel  Via = "tunnel"  // the WireGuard device
	ViaGateway Via = "gateway" // the other node, on the network both are on
)

// Route of the host. Src is set where the kernel's choice could be an address that the other side can't answer to.
type Route struct {
	Dst     netip.Prefix
	Via     Via
	Gateway netip.Addr // only with ViaGateway
	Src     netip.Addr // may be invalid: the kernel's choice
}

// encryptionOf is what a cluster wants. A cluster whose record isn't here yet gets the default, WireGuard for all traffic:
// what would be encrypted must not leave in the clear for want of a record.
func encryptionOf(c *record.Cluster) record.Encryption {
	if c == nil {
		return record.Encryption{On: true, ScopeAll: true}
	}
	return c.Encryption
}
