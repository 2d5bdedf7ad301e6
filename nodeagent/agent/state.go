// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// State is the agent at this moment.
func (a *Agent) State() report.State {
	synced := a.Synced()
	txn := a.Tables.DB.ReadTxn()
	s := report.State{
		Node: a.cfg.Node, Cluster: a.Intake.Cluster(), Version: a.cfg.Version,
		Applied: synced.Applied, Datapath: a.doors.Mode,
		Services: a.Tables.Frontends.Len(txn),
		Tables:   a.tableCounts(txn),
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
	s.Endpoints, s.EndpointsFailing = a.podCounts(txn)
	s.PodsInPodCIDRs = a.podsInPodCIDRs(txn, s.Cluster)
	for _, p := range synced.Policies {
		s.Policies = append(s.Policies, report.Policy{Key: p.Key, Revision: p.Revision, Error: p.Problem})
	}
	slices.SortFunc(s.Policies, func(x, y report.Policy) int { return cmp.Compare(x.Key, y.Key) })
	a.tunnelState(txn, &s)
	if a.doors.Counters != nil {
		counters, err := a.doors.Counters()
		if err != nil {
			s.Problems = append(s.Problems, report.Problem{Code: "counters", Message: err.Error()})
		}
		s.Drops = report.DropsOf(counters)
	}
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
	for row := range a.Tables.Pods.All(a.Tables.DB.ReadTxn()) {
		if row.Status.State == table.Failed {
			out = append(out, report.Problem{Code: "endpoint", Message: "pod " + row.Key + ": " + row.Status.Error})
		}
	}
	for _, text := range append(a.Intake.Problems(), synced.Problems...) {
		out = append(out, report.Problem{Code: "mesh", Message: text})
	}
	return out
}

// podCounts counts this node's pods: those that have the datapath, and those that it could not be given to.
func (a *Agent) podCounts(txn statedb.ReadTxn) (attached, failing int) {
	t := a.Tables
	for row := range t.Pods.All(txn) {
		switch {
		case row.Status.State == table.Failed || a.hookFails(txn, row.Key):
			failing++
		case row.Status.State == table.Done:
			attached++
		}
	}
	return attached, failing
}

func (a *Agent) hookFails(txn statedb.ReadTxn, pod string) bool {
	for hook := range a.Tables.Hooks.Owned(txn, "pod/"+pod) {
		if hook.Status.State == table.Failed {
			return true
		}
	}
	return false
}

// podsInPodCIDRs says whether this node's CNI hands out addresses from the node's pod CIDRs: ours does, and of others
// the pods here bear witness. Without a pod nobody knows.
func (a *Agent) podsInPodCIDRs(txn statedb.ReadTxn, cluster string) bool {
	node, ok := a.Tables.Nodes.Get(record.NodeKey(cluster, a.cfg.Node))
	if !ok {
		return false
	}
	cidrs := node.PodCIDRs
	seen := a.cfg.OwnCNI && len(cidrs) > 0
	for row := range a.Tables.Pods.All(txn) {
		for _, addr := range row.Value.Addrs() {
			if !slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return false
			}
			seen = true
		}
	}
	return seen
}

func (a *Agent) tunnelState(txn statedb.ReadTxn, s *report.State) {
	status := a.wireguard.Status()
	if status.Device == nil {
		return
	}
	s.Encryption = status.Implementation
	if !strings.Contains(s.Encryption, "WireGuard") {
		s.Encryption += " WireGuard"
	}
	s.PublicKey, s.ListenPort = status.Device.PublicKey().String(), status.Device.ListenPort()
	health := map[string]kernelwg.Status{}
	peers, err := status.Device.Peers()
	if err != nil {
		s.Problems = append(s.Problems, report.Problem{Code: "tunnel", Message: err.Error()})
	}
	for _, p := range peers {
		health[p.PublicKey.String()] = p
	}
	for row := range a.Tables.Peers.All(txn) {
		h := health[row.Value.PublicKey]
		flags, known := a.Tables.PeerFlags.Get(txn, row.Key)
		s.Peers = append(s.Peers, report.Peer{
			Cluster: row.Value.Cluster, Node: row.Value.Node, Endpoint: row.Value.Endpoint.String(),
			Ready:         known && flags.Value.Flags&bpf.PeerReady != 0 && flags.Status.State == table.Done,
			LastHandshake: h.LastHandshake, ReceivedBytes: h.ReceivedBytes, SentBytes: h.SentBytes,
			Error: row.Status.Error,
		})
	}
	slices.SortFunc(s.Peers, func(x, y report.Peer) int {
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Node, y.Node))
	})
}

// counted is a desired table, whatever its rows are.
type counted interface {
	Name() string
	Len(statedb.ReadTxn) int
	Count(statedb.ReadTxn) [3]int
}

func (a *Agent) tableCounts(txn statedb.ReadTxn) []report.Table {
	t := a.Tables
	var out []report.Table
	for _, d := range []counted{
		t.Entries, t.Subjects, t.PeerFlags, t.Ranges, t.Addresses, t.Ifaces, t.Locals, t.Hooks, t.Slots, t.Frontends,
		t.Peers, t.Routes,
	} {
		c := d.Count(txn)
		out = append(out, report.Table{Name: d.Name(), Rows: d.Len(txn), Pending: c[table.Pending], Failed: c[table.Failed]})
	}
	return out
}

func failedEntries(t *table.Tables, txn statedb.ReadTxn) []*table.Row[bpf.PolicyKey, bpf.PolicyEntry] {
	var out []*table.Row[bpf.PolicyKey, bpf.PolicyEntry]
	for row := range t.Entries.All(txn) {
		if row.Status.State == table.Failed {
			out = append(out, row)
		}
	}
	return out
}
