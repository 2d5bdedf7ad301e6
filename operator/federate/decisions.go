// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// SetDecisions takes what the MeshCluster objects say now. It judges anew what they changed and nothing else: where a
// cluster's own claim changed, its records of the kinds that the change matters to; and of all others only nodes with an
// address in a range that became, or is no longer, some cluster's pod range. A large cluster is judged in slices, between which
// other clusters are served.
func (i *Intake) SetDecisions(decisions map[string]Decision) {
	i.deciding.Lock()
	defer i.deciding.Unlock()
	defer i.changed()

	i.mu.Lock()
	was := i.decisions
	i.decisions = decisions
	i.statesChanged = true
	judged, gone := i.compare(was)
	i.judgeNodesIn(changedRanges(was, decisions))
	i.deliver(nil)
	i.mu.Unlock()

	for _, name := range judged {
		i.judgeBacklog(name)
	}
	for _, name := range gone {
		i.withdrawAll(name)
		i.log.Info("MeshCluster deleted: the cluster is forgotten, and comes back as new if it is alive", "cluster", name)
		i.forget(name)
	}
}

// compare notes in each remote's backlog what its decision's change matters to, and gives the clusters that have one, and
// those that have no MeshCluster any more.
func (i *Intake) compare(was map[string]Decision) (judged, gone []string) {
	for _, name := range slices.Sorted(maps.Keys(i.decisions)) {
		r, d := i.remotes[name], i.decisions[name]
		if r == nil || name == i.own {
			continue
		}
		switch {
		case d.Claim == nil:
			r.backlog, r.complete = nil, false
		case !d.Frozen:
			r.complete = r.state.Synced
			if r.backlog = kindsToJudge(was[name], d); len(r.backlog) > 0 {
				judged = append(judged, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, still := i.decisions[name]; !still {
			gone = append(gone, name)
		}
	}
	return judged, gone
}

// kindsToJudge gives the kinds of records on which a changed decision may change the verdict, ranges of other clusters
// apart.
func kindsToJudge(was, now Decision) []string {
	switch {
	case was.Claim == nil || was.Frozen, was.Claim.Name != now.Claim.Name, was.Claim.ID != now.Claim.ID,
		was.Claim.MeshID != now.Claim.MeshID, !slices.Equal(was.Claim.PodCIDRs, now.Claim.PodCIDRs):
		return record.Kinds()
	case !slices.Equal(was.Claim.ExportNamespaces, now.Claim.ExportNamespaces):
		return []string{record.KindService, record.KindSlice}
	}
	return nil
}

// changedRanges gives the pod ranges of the mesh that were added or removed.
func changedRanges(was, now map[string]Decision) []netip.Prefix {
	before, after := meshRanges(was), meshRanges(now)
	if slices.Equal(before, after) {
		return nil
	}
	count := map[netip.Prefix]int{}
	for _, p := range before {
		count[p] |= 1
	}
	for _, p := range after {
		count[p] |= 2
	}
	var changed []netip.Prefix
	for p, in := range count {
		if in != 3 {
			changed = append(changed, p)
		}
	}
	return changed
}

// meshRanges are the pod ranges of all clusters that are taken, this one's among them. Every claim holds the same.
func meshRanges(decisions map[string]Decision) []netip.Prefix {
	for _, d := range decisions {
		if d.Claim != nil {
			return d.Claim.MeshPodCIDRs
		}
	}
	return nil
}

// judgeNodesIn judges the nodes that have an address in one of the ranges, unless their turn comes anyway.
func (i *Intake) judgeNodesIn(ranges []netip.Prefix) {
	found := map[string]bool{}
	for _, p := range ranges {
		i.shared.addresses.within(p, found)
	}
	inSlices(i, slices.Sorted(maps.Keys(found)), i.sizeOf, func(key string) *relayv1.Change {
		name := record.ClusterOf(key)
		r, claim := i.remotes[name], i.judging(name)
		if r == nil || claim == nil || slices.Contains(r.backlog, record.KindNode) {
			return nil
		}
		change, refused := r.rejudge(key, claim)
		i.note(r, refused)
		return change
	})
}

// judging gives the claim that a cluster's records are held against; nil if nothing is taken from it now.
func (i *Intake) judging(cluster string) *record.Claim {
	if d := i.decisions[cluster]; !d.Frozen {
		return d.Claim
	}
	return nil
}

// judgeBacklog judges a cluster's records of the kinds in its backlog.
func (i *Intake) judgeBacklog(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r, claim := i.remotes[name], i.decisions[name].Claim
	for len(r.backlog) > 0 {
		kind := r.backlog[0]
		inSlices(i, r.keys(kind), i.sizeOf, func(key string) *relayv1.Change {
			change, refused := r.rejudge(key, claim)
			i.note(r, refused)
			return change
		})
		r.backlog = r.backlog[1:]
		i.statesChanged = true
	}
	i.deliver(nil)
}

// keys gives a kind's keys: nodes by name, so that of two with one WireGuard key every replica takes the same.
func (r *remote) keys(kind string) []string {
	keys := slices.AppendSeq(make([]string, 0, len(r.kinds[kind])), maps.Keys(r.kinds[kind]))
	if kind == record.KindNode {
		slices.Sort(keys)
	}
	return keys
}

// withdrawAll takes all of a cluster from the agents and forgets it.
func (i *Intake) withdrawAll(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.remotes[name]
	if r == nil {
		return
	}
	for _, kind := range slices.Backward(record.Kinds()) {
		inSlices(i, r.keys(kind), i.sizeOf, func(key string) *relayv1.Change {
			h := r.kinds[kind][key]
			if h == nil {
				return nil
			}
			delete(r.kinds[kind], key)
			r.shared.addresses.set(key, nil)
			return r.withdraw(key, h)
		})
	}
	delete(i.remotes, name)
}
