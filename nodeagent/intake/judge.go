// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// judge draws conclusions from what the relay and the tables say of clusters.
func (i *Intake) judge() {
	i.membersChanged = false
	i.live = i.live || i.state.Current()
	if local := i.state.Local(); local != "" && local != i.cluster {
		if i.cluster != "" {
			i.cfg.Log.Error("the relay's cluster is another one than the disk's", "cluster", local, "disk", i.cluster)
		}
		i.cluster = local
	}
	i.complete = NewCompleteness(i.memberList())
}

func (i *Intake) memberList() []Member {
	names := map[string]bool{}
	for name := range i.counts {
		names[name] = true
	}
	for _, c := range i.state.Clusters() {
		names[c.GetName()] = true
	}
	out := make([]Member, 0, len(names))
	for name := range names {
		c, _ := i.cfg.Tables.Clusters.Get(name + "/" + record.KindCluster)
		out = append(out, Member{
			Name: name, Local: name == i.state.Local(), Record: c,
			Complete: func(kind string) bool { return i.state.Complete(name, kind) },
			Unheard:  i.restored && i.counts[name] == 0,
		})
	}
	return out
}

// guessCluster takes the one cluster that has a node of this node's name. Only a snapshot of an agent that didn't keep the
// relay's answer needs it; where two clusters have such a node the relay is waited for.
func (i *Intake) guessCluster() string {
	found := ""
	for key, n := range i.cfg.Tables.Nodes.All() {
		if n.Name != i.cfg.Node {
			continue
		}
		if found != "" {
			return ""
		}
		found = record.ClusterOf(key)
	}
	return found
}

// Cluster is this node's own, empty while it is not known.
func (i *Intake) Cluster() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cluster
}

// StopWaiting lets what the disk holds count although the relay has not sent anything newer.
func (i *Intake) StopWaiting() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waited = true
}

// Usable says that the tables hold a state that once was whole, so that it may be planned. What comes from the disk is
// older than what the kernel holds, by as much as the disk was slow; so the relay is waited for before it counts.
func (i *Intake) Usable() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live || i.restored && i.waited
}

// Complete says that nothing is missing from the tables of what this node's own cluster has of these kinds (none: of every
// kind), so that what they don't hold is gone. Only the relay can know that.
func (i *Intake) Complete(kinds ...string) bool { return i.Completeness().Own(kinds...) }

// Completeness says it of every cluster.
func (i *Intake) Completeness() *Completeness {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.complete
}

// Problems are what somebody should know of this node's records.
func (i *Intake) Problems() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := i.unreadable.problems()
	if i.live && i.state.Local() == "" {
		out = append(out, fmt.Sprintf("the relay doesn't say which cluster it is of, so nothing can be planned for node %s: upgrade the operator", i.cfg.Node))
	}
	return out
}
