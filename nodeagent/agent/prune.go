// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	applypolicy "github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/plan"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// look takes in what the records are complete of, once a round, so that all steps of a round go by the same.
func (a *Agent) look() {
	if c := a.Intake.Completeness(); c != a.complete {
		a.complete = c
		a.completeVersion++
	}
}

// ownPodsKnown says that the pods of this node are all among the records.
func (a *Agent) ownPodsKnown() bool { return a.complete.Own(record.KindEndpoint) }

// mayPrune says of a step whether its table holds everything, so that what the kernel holds beyond it may go. Tables that
// others fill than the planner must have been filled by them: a restart must not detach a pod with an interface that is
// still being looked for, nor a tunnel that is not open yet.
func (a *Agent) mayPrune(step string) bool {
	if a.planner == nil {
		return false
	}
	t, c := a.Tables, a.complete
	switch step {
	case t.Sets.Name(), t.Classes.Name(), t.Members.Name(), t.Blocks.Name(), t.Groups.Name(), t.Subjects.Name():
		// The policy engine started from what these maps hold and decided about each row.
		return true
	case t.Guards.Name(), t.Ranges.Name():
		return c.All(record.KindCluster)
	case t.Addresses.Name():
		return a.finder.Synced() && c.All(record.KindCluster, record.KindNode, record.KindEndpoint)
	case t.Ifaces.Name(), t.Locals.Name():
		return a.finder.Synced() && c.Own(record.KindEndpoint)
	case t.Hooks.Name():
		return false // see removableHooks
	case t.PeerFlags.Name():
		return c.All(record.KindCluster, record.KindNode) && a.tunnelSynced()
	case t.Slots.Name(), t.Frontends.Name():
		return c.Own(record.KindService, record.KindSlice)
	}
	return c.All()
}

func (a *Agent) tunnelSynced() bool { return !a.encrypts() || a.wireguard.Status().Synced }

// encrypts is true as long as nothing says otherwise.
func (a *Agent) encrypts() bool {
	for row := range a.Tables.Settings.All() {
		return row.Value.Encryption
	}
	return true
}

// removableRanges and removableAddresses let rows of complete clusters go while another cluster is dark.
func (a *Agent) removableRanges() (version uint64, may func(netip.Prefix) bool) {
	if a.planner == nil || a.complete == nil {
		return 0, nil
	}
	return a.completeVersion, a.complete.Range
}

func (a *Agent) removableAddresses() (version uint64, may func(netip.Addr) bool) {
	// The node's own addresses are the finder's to know.
	if a.planner == nil || a.complete == nil || !a.finder.Synced() {
		return 0, nil
	}
	return a.completeVersion, a.complete.Address
}

// removableHooks lets programs go when the finder and the tunnel know theirs; those of pods only with their interfaces. An
// interface without them would be open, and a pod may live longer than its record.
func (a *Agent) removableHooks() (version uint64, may func(table.Hook) bool) {
	if a.planner == nil || !a.finder.Synced() || !a.complete.Own(record.KindEndpoint) || !a.tunnelSynced() {
		return 0, nil
	}
	version, _ = a.finder.Interfaces()
	return version, func(h table.Hook) bool { return h.Role != table.RolePod || a.finder.Gone(h.Ifindex) }
}

// releaseIndexes lets indexes of peers be given away that only rows of an earlier run bore, once those are gone.
func (a *Agent) releaseIndexes(pass apply.Pass) {
	if a.indexesFree {
		return
	}
	for _, o := range pass.Outcomes {
		if o.Step == a.Tables.Addresses.Name() && (!o.Pruned || o.Failing > 0 || o.Err != nil) {
			return
		}
	}
	a.planner.ReleaseIndexes()
	a.indexesFree = true
}

// removablePeers says of WireGuard peers that no table wants whether they belong to nobody; nil: none is known to.
func (a *Agent) removablePeers() (version uint64, may func(allowed []netip.Prefix) bool) {
	s := a.Synced()
	if s.complete == nil {
		return 0, nil
	}
	return s.completeVersion, s.complete.Peer
}

// removableRoutes lets the host's routes go like the peers behind them.
func (a *Agent) removableRoutes() (version uint64, may func(netip.Prefix) bool) {
	version, peer := a.removablePeers()
	if peer == nil {
		return 0, nil
	}
	return version, func(p netip.Prefix) bool { return peer([]netip.Prefix{p}) }
}

// memory reads what the kernel holds from an earlier run.
func (a *Agent) memory(ctx context.Context) (*plan.Memory, applypolicy.Memory, error) {
	m := plan.NewMemory()
	var held applypolicy.Memory
	var err error
	d := a.drivers
	if err := d.Routes.Addresses.Have(ctx, each(m.Address)); err != nil {
		return nil, held, err
	}
	if err := d.Services.Frontends.Have(ctx, each(m.Frontend)); err != nil {
		return nil, held, err
	}
	if err := d.Services.Slots.Have(ctx, each(m.Slot)); err != nil {
		return nil, held, err
	}
	held, err = applypolicy.Remember(ctx, d.Policy)
	if err != nil {
		return nil, held, err
	}
	a.held = held.Held()
	m.Policy = held.Remembered()
	return m, held, nil
}

func each[K, V any](row func(K, V)) func([]K, []V) {
	return func(keys []K, values []V) {
		for i, key := range keys {
			row(key, values[i])
		}
	}
}

// policyLimits are the sizes of the maps that policy lies in. A driver without sizes has no limits but the numbers' own.
func (a *Agent) policyLimits() policy.Limits {
	size := func(name string, otherwise int) int {
		if n, ok := a.drivers.MapSizes[name]; ok {
			return int(n)
		}
		return otherwise
	}
	return policy.Limits{
		Sets:       min(policy.SetCount, size(bpf.MapSets, policy.SetCount)),
		Classes:    size(bpf.MapClasses, 1<<16),
		Identities: size(bpf.MapIdentities, 1<<24),
		Chunks:     size(bpf.MapGroups, 1<<20),
		Subjects:   size(bpf.MapSubjects, 1<<20) / 2, // two banks
		CIDRs:      max(1, min(size(bpf.MapBlocks4, 1<<16), size(bpf.MapBlocks6, 1<<16))),
	}
}
