// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Detailed is the state with every peer, for people.
func (a *Agent) Detailed() report.State {
	s := a.State()
	s.Peers = a.tunnels.list()
	return s
}

// State is the agent at this moment, as it is reported.
func (a *Agent) State() report.State {
	synced := a.Synced()
	s := report.State{
		Node: a.cfg.Node, Cluster: a.Intake.Cluster(), Version: a.cfg.Version,
		Applied: synced.Applied, Datapath: a.drivers.Mode,
		Services: a.Tables.Frontends.Len(),
		Tables:   a.tableCounts(),
		Maps:     report.MapsOf(a.mapsUsed(), a.drivers.MapSizes),
		Problems: slices.Clone(a.cfg.Problems),
	}
	s.Relay.Position = report.PositionOf(a.Intake.Position())
	if a.relay != nil {
		c := a.relay.Status()
		s.Relay.Connected, s.Relay.Target, s.Relay.Since = c.Connected, c.Target, c.Since
		if c.LastError != nil {
			s.Relay.Error = c.LastError.Error()
		}
	}
	s.Endpoints, s.EndpointsFailing = a.podCounts()
	s.PodsInPodCIDRs = a.podsInPodCIDRs(s.Cluster)
	for _, p := range synced.Policies {
		s.Policies = append(s.Policies, report.Policy{Key: p.Key, Revision: p.Revision, Content: p.Content, Error: p.Problem, Warning: p.Warning})
	}
	slices.SortFunc(s.Policies, func(x, y report.Policy) int { return cmp.Compare(x.Key, y.Key) })
	a.addTunnels(&s)
	if a.drivers.Counters != nil {
		counters, err := a.drivers.Counters()
		if err != nil {
			s.Problems = append(s.Problems, report.Problem{Code: "counters", Message: err.Error()})
		}
		s.Drops = report.DropsOf(counters)
	}
	s.Problems = append(s.Problems, report.MapPressure(s.Maps)...)
	s.Problems = append(s.Problems, a.problems(synced)...)
	return s
}

// problems of all parts.
func (a *Agent) problems(synced Synced) []report.Problem {
	var out []report.Problem
	add := func(code string, err error) {
		if err != nil {
			out = append(out, report.Problem{Code: code, Message: err.Error()})
		}
	}
	add("snapshot", a.Intake.Err())
	add("node", a.finder.Err())
	add("services", synced.Sockets)
	add("tunnel", a.wireguard.Status().Err)
	for _, p := range a.also {
		add(p.name, p.err())
	}
	for _, o := range synced.Failing {
		out = append(out, report.Problem{Code: "datapath", Message: fmt.Sprintf("%d rows of %s wait: %v", o.Failing, o.Step, o.Err)})
	}
	for _, row := range a.Tables.Pods.FailedRows(maxProblems) {
		out = append(out, report.Problem{Code: "endpoint", Message: "pod " + row.Key + ": " + row.Status.Error})
	}
	for _, text := range slices.Concat(a.Intake.Problems(), synced.Problems) {
		out = append(out, report.Problem{Code: "mesh", Message: text})
	}
	return out
}

// maxProblems of one kind are listed.
const maxProblems = 32

// podCounts counts this node's pods: those that have the datapath, and those that it could not be given to.
func (a *Agent) podCounts() (attached, failing int) {
	pods := a.Tables.Pods.Count()
	unhooked := 0
	for _, row := range a.Tables.Hooks.FailedRows(pods[table.Done]) {
		if row.Key.Role == table.RolePod {
			unhooked++
		}
	}
	return max(0, pods[table.Done]-unhooked), pods[table.Failed] + unhooked
}

// podsInPodCIDRs says whether this node's CNI hands out addresses from the node's pod CIDRs: ours does, and of others
// the pods here bear witness. Without a pod nobody knows.
func (a *Agent) podsInPodCIDRs(cluster string) bool {
	node, ok := a.Tables.Nodes.Get(record.NodeKey(cluster, a.cfg.Node))
	if !ok {
		return false
	}
	seen := a.cfg.OwnCNI && len(node.PodCIDRs) > 0
	for row := range a.Tables.Pods.All() {
		for _, addr := range row.Value.Addresses {
			if !slices.ContainsFunc(node.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return false
			}
			seen = true
		}
	}
	return seen
}

// counted is a desired table, whatever its rows are.
type counted interface {
	Name() string
	Count() [3]int
}

// tableCounts of the tables that are brought to the kernel.
func (a *Agent) tableCounts() []report.Table {
	t := a.Tables
	var out []report.Table
	for _, d := range []counted{
		t.Sets, t.Classes, t.Members, t.Blocks, t.Groups, t.Subjects, t.PeerFlags, t.Guards, t.Ranges, t.Addresses, t.Ifaces, t.Locals,
		t.Hooks, t.Slots, t.Frontends, t.Peers, t.Routes,
	} {
		c := d.Count()
		out = append(out, report.Table{
			Name: d.Name(), Rows: c[table.Pending] + c[table.Done] + c[table.Failed], Pending: c[table.Pending], Failed: c[table.Failed],
		})
	}
	return out
}

// mapsUsed counts the rows that are wanted in each map that the agent fills.
func (a *Agent) mapsUsed() map[string]int {
	t := a.Tables
	out := map[string]int{
		bpf.MapClasses: t.Classes.Len(), bpf.MapIdentities: t.Members.Len(), bpf.MapGroups: t.Groups.Len(),
		bpf.MapSubjects: 2 * t.Subjects.Len(), // in both banks
		bpf.MapIfaces:   t.Ifaces.Len(), bpf.MapSlots: t.Slots.Len(),
	}
	for _, m := range []struct {
		four, six string
		rows      interface{ Families() (int, int) }
	}{
		{bpf.MapIpcache4, bpf.MapIpcache6, t.Addresses}, {bpf.MapCIDR4, bpf.MapCIDR6, t.Ranges},
		{bpf.MapBlocks4, bpf.MapBlocks6, t.Blocks}, {bpf.MapGuard4, bpf.MapGuard6, t.Guards}, {bpf.MapLocals4, bpf.MapLocals6, t.Locals},
		{bpf.MapServices4, bpf.MapServices6, t.Frontends},
	} {
		out[m.four], out[m.six] = m.rows.Families()
	}
	return out
}
