// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// dumps are views of a node's kernel: what lies in the maps, with names in place of numbers, which differ from run to
// run. The names come from the agent's tables.
var dumps = map[string]func(*node) []string{
	"policy":   (*node).dumpPolicy,
	"subjects": (*node).dumpSubjects,
	"ipcache":  (*node).dumpAddresses,
	"services": (*node).dumpServices,
	"peers":    (*node).dumpPeers,
	"routes":   (*node).dumpRoutes,
	"pods":     (*node).dumpPods,
}

func (n *node) dumpSubjects() []string {
	var out []string
	for key, s := range n.kernel.policy().subjects {
		line := fmt.Sprintf("%s %s", key.Dir, n.who(key.Identity))
		if s.Flags&bpf.SubjectIsolated != 0 {
			line += " denied by default"
		} else {
			line += " allowed by default"
		}
		if s.Flags&bpf.SubjectAudit != 0 {
			line += " audited"
		}
		if s.DefaultRule != 0 {
			line += " by " + n.rule(s.DefaultRule)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// dumpAddresses shows who has each address and how it is reached: the exact ones, then the ranges, then the CIDRs that
// policies name.
func (n *node) dumpAddresses() []string {
	addresses, ranges := n.kernel.addresses.all(), n.kernel.ranges.all()
	var out []string
	for _, a := range slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare) {
		out = append(out, a.String()+" "+n.remote(addresses[a]))
	}
	for _, p := range slices.SortedFunc(maps.Keys(ranges), comparePrefixes) {
		out = append(out, p.String()+" "+n.remote(ranges[p]))
	}
	blocks := n.kernel.blocks.all()
	for _, p := range slices.SortedFunc(maps.Keys(blocks), comparePrefixes) {
		out = append(out, "block "+p.String())
	}
	return out
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func (n *node) remote(r bpf.Remote) string {
	s := n.who(r.Identity)
	if r.Peer != 0 {
		s += " behind " + n.peer(r.Peer)
	}
	for _, f := range []struct {
		bit  uint8
		text string
	}{
		{bpf.RemoteTunnel, "through the tunnel"},
		{bpf.RemoteRequireTunnel, "never in the clear"},
		{bpf.RemoteService, "a service's"},
		{bpf.RemoteUnvouched, "or a node"},
	} {
		if r.Flags&f.bit != 0 {
			s += ", " + f.text
		}
	}
	return s
}

// dumpServices shows where each frontend leads, read as the datapath does: the frontend's number, its count, its slots.
func (n *node) dumpServices() []string {
	var out []string
	for f, s := range n.kernel.frontends.all() {
		var backends []string
		for slot := range s.Backends {
			b, ok := n.kernel.slots.get(bpf.SlotKey{Service: s.ID, Slot: slot})
			if !ok {
				backends = append(backends, "a slot that isn't there")
				continue
			}
			addr := table.BackendAddr(b)
			backends = append(backends, fmt.Sprintf("%s (%s)", netip.AddrPortFrom(addr, b.Port), n.pod(addr)))
		}
		slices.Sort(backends)
		if len(backends) == 0 {
			backends = []string{"nobody"}
		}
		out = append(out, fmt.Sprintf("%s %s -> %s", n.service(f.Addr), f, strings.Join(backends, ", ")))
	}
	slices.Sort(out)
	return out
}

// dumpPeers shows the tunnel's peers and whether the datapath may use them.
func (n *node) dumpPeers() []string {
	var out []string
	for key, set := range n.kernel.tunnel.all() {
		name, ready := "a stranger", "not used"
		for row := range n.agent.Tables.Peers.All() {
			if row.Value.PublicKey != record.PublicKey(key) {
				continue
			}
			name = row.Value.Cluster + "/" + row.Value.Node
			if flags, ok := n.kernel.peers.get(row.Key); ok && flags.Flags&bpf.PeerReady != 0 {
				ready = "ready"
			}
		}
		out = append(out, fmt.Sprintf("%s at %s, %s", name, set, ready))
	}
	slices.Sort(out)
	return out
}

func (n *node) dumpRoutes() []string {
	all := n.kernel.routes.all()
	var out []string
	for _, p := range slices.SortedFunc(maps.Keys(all), comparePrefixes) {
		r, line := all[p], p.String()
		if r.Link == tunnelIndex {
			line += " into the tunnel"
		}
		if r.Via.IsValid() {
			line += " via " + r.Via.String()
		}
		if r.Src.IsValid() {
			line += " from " + r.Src.String()
		}
		out = append(out, line)
	}
	return out
}

// dumpPods shows the interfaces of the node's pods: whose packets each sends, and whether programs sit on it.
func (n *node) dumpPods() []string {
	var out []string
	for index, i := range n.kernel.ifaces.all() {
		attached := "open"
		if _, ok := n.kernel.hooks.get(table.Hook{Role: table.RolePod, Ifindex: index}); ok {
			attached = "guarded"
		}
		addr := netip.AddrFrom4(i.IP4)
		out = append(out, fmt.Sprintf("%s (%s) is %s, %s", addr, n.pod(addr), n.who(i.Identity), attached))
	}
	slices.Sort(out)
	return out
}

// who says whom an identity stands for: cluster/namespace and the pod's own labels.
func (n *node) who(id uint32) string {
	switch {
	case identity.IsReserved(id):
		return identity.Name(id)
	case identity.IsCIDR(id):
		for p, block := range n.kernel.blocks.all() {
			if block == id {
				return "cidr " + p.String()
			}
		}
		return "a cidr that isn't there"
	}
	for _, i := range n.agent.Tables.Identities.All() {
		if i.ID == id {
			return describe(i.Labels)
		}
	}
	return fmt.Sprintf("an identity of cluster %d that nobody knows", identity.ClusterOf(id))
}

func describe(labels map[string]string) string {
	s := labels["fairlead.dev/cluster"] + "/" + labels["fairlead.dev/namespace"]
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !strings.HasPrefix(key, "fairlead.dev/") && !strings.HasPrefix(key, "namespace.fairlead.dev/") {
			s += " " + key + "=" + labels[key]
		}
	}
	return s
}

func (n *node) rule(id uint32) string {
	row, ok := n.agent.Tables.Rules.Get(id)
	if !ok {
		return "a rule that nobody knows"
	}
	return table.Format(row.Value)
}

func (n *node) peer(index uint16) string {
	row, ok := n.agent.Tables.Peers.Get(index)
	if !ok {
		return "a peer that nobody knows"
	}
	return row.Value.Cluster + "/" + row.Value.Node
}

func (n *node) pod(a netip.Addr) string {
	for _, e := range n.agent.Tables.EndpointsAt(a) {
		return e.Cluster + "/" + e.Namespace + "/" + e.Name
	}
	return "no pod"
}

// service names the service of the node's cluster that has an address.
func (n *node) service(a netip.Addr) string {
	for key, s := range n.agent.Tables.Services.All() {
		if record.ClusterOf(key) == n.cluster.name && slices.Contains(s.ClusterIPs, a) {
			return s.Namespace + "/" + s.Name
		}
	}
	return "?"
}
