// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// world is everything the sums are made from, and the plain way to make them: look at every node for every policy.
type world struct {
	nodes    map[string]bool
	agents   map[string]*v1alpha1.MeshNode
	policies map[string]Wanted
	sources  map[SourceName]inventory
}

type inventory struct {
	revision string
	keys     []string
}

func newWorld() *world {
	return &world{nodes: map[string]bool{}, agents: map[string]*v1alpha1.MeshNode{}, policies: map[string]Wanted{}, sources: map[SourceName]inventory{}}
}

// realized counts the nodes on which every one of these policies is in force as it should be: at this content, and not merely
// at this revision. A policy without content is not to be had.
func (w *world) realized(wanted map[string]Version) (nodes v1alpha1.PolicyNodes, why map[string]string) {
	nodes.Total = int32(len(w.nodes))
	why = map[string]string{}
	for name := range w.nodes {
		all, errors := onNode(wanted, w.agents[name])
		if all {
			nodes.Realized++
		}
		if len(errors) > 0 {
			nodes.Failing = append(nodes.Failing, name)
			why[name] = errors[0]
		}
	}
	slices.Sort(nodes.Failing)
	nodes.Failing = nodes.Failing[:min(len(nodes.Failing), 10)]
	return nodes, why
}

func onNode(wanted map[string]Version, agent *v1alpha1.MeshNode) (all bool, errors []string) {
	if agent == nil {
		return false, nil
	}
	have := map[string]v1alpha1.NodePolicy{}
	for _, p := range slices.Backward(agent.Status.Policies) {
		have[p.Key] = p // of doubled keys the first counts
	}
	all = true
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		p, there := have[key]
		if there && p.Error != "" {
			errors = append(errors, key+": "+p.Error)
		}
		all = all && there && p.Error == "" && p.Content != "" && p.Content == wanted[key].Content && p.Revision == wanted[key].Revision
	}
	return all, errors
}

func (w *world) policy(key string) Policy {
	want, exported := w.policies[key]
	if !exported {
		return Policy{Nodes: v1alpha1.PolicyNodes{Total: int32(len(w.nodes))}}
	}
	nodes, why := w.realized(map[string]Version{key: want.Version})
	out := Policy{Exported: true, Want: want, Nodes: nodes}
	if len(nodes.Failing) > 0 {
		out.Why = nodes.Failing[0] + ": " + why[nodes.Failing[0]]
	}
	var warnings []string
	for name := range w.nodes {
		if a := w.agents[name]; a != nil {
			if at := slices.IndexFunc(a.Status.Policies, func(p v1alpha1.NodePolicy) bool { return p.Key == key }); at >= 0 {
				if p := a.Status.Policies[at]; p.Error == "" && p.Warning != "" {
					warnings = append(warnings, p.Warning)
				}
			}
		}
	}
	if len(warnings) > 0 {
		out.Warning = slices.Min(warnings)
	}
	return out
}

func (w *world) source(name SourceName) v1alpha1.PolicyNodes {
	inv := w.sources[name]
	wanted := map[string]Version{}
	for _, key := range inv.keys {
		wanted[key] = Version{Revision: inv.revision}
		if is, exported := w.policies[key]; exported && is.Revision == inv.revision {
			wanted[key] = is.Version
		}
	}
	nodes, _ := w.realized(wanted)
	return nodes
}

func (w *world) tunnels(cluster string, theirNodes int) v1alpha1.NodeCounts {
	var n v1alpha1.NodeCounts
	for _, a := range w.agents {
		reported := 0
		for _, t := range a.Status.Tunnels {
			if t.Cluster == cluster {
				reported = int(t.Wanted)
				n.Ready += t.Ready
			}
		}
		n.Total += int32(max(reported, theirNodes))
	}
	return n
}

// feed gives an Index everything at once, as informers do after a start.
func (w *world) feed(x *Index) {
	for name := range w.nodes {
		x.SetNode(name, true)
	}
	for name, inv := range w.sources {
		x.SetSource(name, inv.revision, inv.keys)
	}
	for name, a := range w.agents {
		x.SetAgent(name, a)
	}
	for key, want := range w.policies {
		x.SetPolicy(key, want)
	}
}
