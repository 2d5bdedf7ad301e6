// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package topology decides how one node reaches every other node and pod of the mesh.
//
//	clusters, nodes, endpoints ── Compute ──► Peers    WireGuard peers and what each may send (AllowedIPs)
//	                                          IPCache  whose address it is, and whether it lies behind the tunnel
//	                                          CIDRs    the same for ranges, for addresses nobody has yet
//	                                          Routes   for the host's own processes, and pods of our own CNI
//
// A Plan is a value: the agent diffs it into tables, the CLI prints it. The package is pure, and linear in what it is
// given, because a mesh of 25,000 nodes and 250,000 pods is planned on each node.
package topology

import (
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Node is a node of a cluster.
type Node struct {
	Cluster string
	Node    *recordv1.Node
}

// Endpoint is a pod of a cluster.
type Endpoint struct {
	Cluster  string
	Endpoint *recordv1.Endpoint
}

// Input is what a plan depends on.
type Input struct {
	Self      string // this node's name
	Cluster   string // and its cluster's
	Clusters  map[string]*recordv1.Cluster
	Nodes     []Node
	Endpoints []Endpoint

	EncryptionOn bool // WireGuard; without it there is no way to other clusters
	ScopeAll     bool // the tunnel also carries what stays within this cluster
	Strict       bool // plaintext within this cluster is refused
	OwnCNI       bool // pods' routes between nodes are ours to set

	// PreviousIndexes of peers by PeerKey, so that a peer keeps its index while others come and go.
	PreviousIndexes map[string]uint16
}

// Plan is how this node reaches the mesh.
type Plan struct {
	Peers    []Peer // sorted by cluster and node
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
type Peer struct {
	Cluster    string
	Node       string
	PublicKey  string // base64
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix // sorted
	Index      uint16         // never 0
}

// PeerKey names a peer.
func PeerKey(cluster, node string) string { return cluster + "/" + node }

// IPCacheEntry says whose an address is and how to reach it.
type IPCacheEntry struct {
	Identity      uint32
	Peer          uint16 // index of the node's peer; 0: it has none (yet)
	Tunnel        bool   // packets to it go through the tunnel or not at all
	RequireTunnel bool   // packets from it are believed only if they came through the tunnel
	Node          bool   // a node's own address
	Service       bool   // ranges only: addresses of services
	ClusterID     uint8
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

// Compute plans. It never fails: what can't be used is left out, which drops packets and opens nothing, and Problems
// say what and why.
func Compute(in Input) Plan {
	p := newPlanner(in)
	p.clusterRanges()
	p.indexEndpoints()
	p.claimAddresses()
	p.peers()
	p.nodeAddresses()
	p.endpoints()
	p.routes()
	return p.finish()
}
