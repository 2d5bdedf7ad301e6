// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// network is how this node reaches the mesh, as rows.
type network struct {
	peers     map[uint16]table.Peer
	addresses map[netip.Addr]bpf.Remote
	ranges    map[netip.Prefix]topology.IPCacheEntry // completed with the policies' CIDRs
	routes    map[netip.Prefix]table.Route
	pods      map[string]table.Pod
	setting   table.Setting
	indexes   map[string]uint16
	problems  []string
}

// encryption is what the cluster wants; its record may say nothing yet.
type encryption struct{ on, all, strict bool }

func encryptionOf(c *recordv1.Cluster) encryption {
	e := c.GetEncryption()
	return encryption{on: e.GetMode() != "None", all: e.GetScope() != "InterCluster", strict: e.GetStrict()}
}

func planNetwork(in topology.Input) network {
	p := topology.Compute(in)
	n := network{
		peers:     make(map[uint16]table.Peer, len(p.Peers)),
		addresses: make(map[netip.Addr]bpf.Remote, len(p.IPCache)),
		ranges:    p.CIDRs,
		routes:    make(map[netip.Prefix]table.Route, len(p.Routes)),
		pods:      map[string]table.Pod{},
		setting:   setting(in),
		indexes:   p.Indexes(),
		problems:  p.Problems,
	}
	for _, peer := range p.Peers {
		n.peers[peer.Index] = table.Peer{
			Cluster: peer.Cluster, Node: peer.Node, PublicKey: peer.PublicKey, Endpoint: peer.Endpoint,
			AllowedIPs: table.JoinPrefixes(peer.AllowedIPs),
		}
	}
	for addr, entry := range p.IPCache {
		n.addresses[addr] = remote(entry)
	}
	for _, r := range p.Routes {
		n.routes[r.Dst] = table.Route{Via: string(r.Via), Gateway: r.Gateway, Source: r.Src}
	}
	for _, e := range in.Endpoints {
		if e.Cluster == in.Cluster && e.Endpoint.GetNode() == in.Self {
			addPod(n.pods, e.Endpoint)
		}
	}
	return n
}

func addPod(pods map[string]table.Pod, e *recordv1.Endpoint) {
	var addrs []netip.Addr
	for _, text := range e.Addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	pods[e.Namespace+"/"+e.Name] = table.Pod{Addresses: table.JoinAddrs(addrs), Identity: e.Identity}
}

func setting(in topology.Input) table.Setting {
	return table.Setting{
		ClusterID: in.Clusters[in.Cluster].GetId(), Encryption: in.EncryptionOn, Strict: in.Strict,
	}
}

func remote(e topology.IPCacheEntry) bpf.Remote {
	r := bpf.Remote{Identity: e.Identity, Peer: e.Peer}
	for _, f := range []struct {
		set bool
		bit uint8
	}{
		{e.Tunnel, bpf.RemoteTunnel},
		{e.RequireTunnel, bpf.RemoteRequireTunnel},
		{e.Node, bpf.RemoteNode},
		{e.Service, bpf.RemoteService},
	} {
		if f.set {
			r.Flags |= f.bit
		}
	}
	return r
}

// planRanges joins the mesh's ranges with those that policies name.
func planRanges(mesh map[netip.Prefix]topology.IPCacheEntry, policy map[netip.Prefix]uint32) map[netip.Prefix]bpf.Remote {
	all := topology.WithPolicyCIDRs(mesh, policy)
	out := make(map[netip.Prefix]bpf.Remote, len(all))
	for prefix, entry := range all {
		out[prefix] = remote(entry)
	}
	return out
}
