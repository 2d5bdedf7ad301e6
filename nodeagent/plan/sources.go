// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
)

// recordKey of a policy that mesh/policy names.
func recordKey(cluster, policyKey string) string { return cluster + "/policies/" + policyKey }

func (p *Planner) networkInput(txn statedb.ReadTxn) topology.Input {
	in := topology.Input{
		Self: p.cfg.Node, Cluster: p.cfg.Cluster, OwnCNI: p.cfg.OwnCNI,
		Clusters: map[string]*recordv1.Cluster{},
	}
	for r := range p.tables.Clusters.All(txn) {
		in.Clusters[r.Cluster] = r.Body
	}
	for r := range p.tables.Nodes.All(txn) {
		in.Nodes = append(in.Nodes, topology.Node{Cluster: r.Cluster, Node: r.Body})
	}
	for r := range p.tables.Endpoints.All(txn) {
		in.Endpoints = append(in.Endpoints, topology.Endpoint{Cluster: r.Cluster, Endpoint: r.Body})
	}
	e := encryptionOf(in.Clusters[p.cfg.Cluster])
	in.EncryptionOn, in.ScopeAll, in.Strict = e.on, e.all, e.strict
	if p.indexes == nil {
		p.indexes = rememberedIndexes(in.Nodes, p.memory.Addresses)
	}
	in.PreviousIndexes = p.indexes
	return in
}

// rememberedIndexes finds the index that each node had in the kernel: the entry of its own address has it.
func rememberedIndexes(nodes []topology.Node, addresses map[netip.Addr]bpf.Remote) map[string]uint16 {
	out := map[string]uint16{}
	for _, n := range nodes {
		for _, text := range n.Node.GetAddresses() {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			if r, ok := addresses[addr.Unmap()]; ok && r.Peer != 0 && r.Flags&bpf.RemoteNode != 0 {
				out[topology.PeerKey(n.Cluster, n.Node.Name)] = r.Peer
				break
			}
		}
	}
	return out
}

// rememberedCIDRs finds the identities that policies' CIDRs had in the kernel.
func rememberedCIDRs(ranges map[netip.Prefix]bpf.Remote) map[netip.Prefix]uint32 {
	out := map[netip.Prefix]uint32{}
	for prefix, r := range ranges {
		if identity.IsCIDR(r.Identity) {
			out[prefix] = r.Identity
		}
	}
	return out
}

func (p *Planner) policyInput(txn statedb.ReadTxn) (policy.Input, map[string]Policy) {
	in := policy.Input{
		Cluster:       p.cfg.Cluster,
		Clusters:      map[string]map[string]string{},
		Identities:    make(map[uint32]map[string]string, p.tables.Identities.Len(txn)),
		Subjects:      p.watch.subjects(),
		NamedPorts:    p.watch.namedPorts(),
		PreviousCIDRs: p.cidrs,
	}
	for r := range p.tables.Clusters.All(txn) {
		in.Clusters[r.Cluster] = r.Body.GetLabels()
	}
	for r := range p.tables.Identities.All(txn) {
		in.Identities[r.Body.GetId()] = r.Body.GetLabels()
	}
	planned := map[string]Policy{}
	for r := range p.tables.Policies.All(txn) {
		if r.Cluster != p.cfg.Cluster {
			continue // a policy speaks for the cluster whose administrators wrote it
		}
		in.Policies = append(in.Policies, r.Body)
		planned[r.Key] = Policy{Key: r.Key, Revision: r.Body.GetProvenance().GetRevision()}
	}
	return in, planned
}

// definitions collects what every cluster says about one service.
func (p *Planner) definitions(txn statedb.ReadTxn, name string) []service.Definition {
	byCluster := map[string]*service.Definition{}
	for r := range p.tables.Services.About(txn, name) {
		byCluster[r.Cluster] = &service.Definition{Cluster: r.Cluster, Service: r.Body}
	}
	for r := range p.tables.Slices.About(txn, name) {
		if d := byCluster[r.Cluster]; d != nil {
			d.Slices = append(d.Slices, r.Body)
		}
	}
	var out []service.Definition
	for _, cluster := range slices.Sorted(maps.Keys(byCluster)) {
		out = append(out, *byCluster[cluster])
	}
	return out
}
