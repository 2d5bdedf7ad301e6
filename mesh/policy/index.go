// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// index finds the identities that selectors choose. Policies are mostly about one namespace, so identities are grouped by
// it; what a selector chose is remembered, because many policies say the same.
type index struct {
	cluster  string
	clusters map[string]labels.Set

	ids    []uint32 // ascending; the slices below have the same order
	labels []labels.Set
	group  []*group

	groups      []*group
	byNamespace map[string][]*group
	byLabel     map[string]map[string][]int32 // key → value → positions; a key is entered when it is first needed
	memo        map[string][]uint32
}

// group is the identities of one namespace of one cluster.
type group struct {
	cluster, namespace string
	labels             map[string]string // of one identity: those of the namespace are the same in all
	members            []int32           // positions in ids
}

func newIndex(in *Input) *index {
	x := &index{
		cluster:     in.Cluster,
		clusters:    make(map[string]labels.Set, len(in.Clusters)),
		ids:         slices.Sorted(maps.Keys(in.Identities)),
		byNamespace: map[string][]*group{},
		byLabel:     map[string]map[string][]int32{},
		memo:        map[string][]uint32{},
	}
	for name, l := range in.Clusters {
		set := make(labels.Set, len(l)+1)
		maps.Copy(set, l)
		set[identity.LabelCluster] = name
		x.clusters[name] = set
	}
	x.labels = make([]labels.Set, len(x.ids))
	x.group = make([]*group, len(x.ids))
	groups := map[string]*group{}
	for i, id := range x.ids {
		l := in.Identities[id]
		x.labels[i] = l
		key := groupKey(l)
		g := groups[key]
		if g == nil {
			g = &group{cluster: l[identity.LabelCluster], namespace: l[identity.LabelNamespace], labels: l}
			groups[key] = g
			x.groups = append(x.groups, g)
			x.byNamespace[g.namespace] = append(x.byNamespace[g.namespace], g)
		}
		g.members = append(g.members, int32(i))
		x.group[i] = g
	}
	return x
}

// groupKey tells namespaces apart, with their labels: identities from before and after a change of a namespace's labels
// exist side by side.
func groupKey(l map[string]string) string {
	var parts []string
	for k, v := range l {
		if strings.HasPrefix(k, identity.LabelNamespacePrefix) {
			parts = append(parts, k+"="+v)
		}
	}
	slices.Sort(parts)
	parts = append(parts, l[identity.LabelCluster], l[identity.LabelNamespace])
	return strings.Join(parts, "\x00")
}

// local says whether an identity is one of this cluster's pods.
func (x *index) local(id uint32) bool {
	i, ok := slices.BinarySearch(x.ids, id)
	return ok && identity.IsPod(id) && x.group[i].cluster == x.cluster
}

// resolve returns the identities that a selector chooses, ascending. orUnknown says whether a selector of clusters also
// chooses clusters whose labels are not known: a deny rule had better.
func (x *index) resolve(s *podSelector, orUnknown bool) []uint32 {
	key := s.key(orUnknown)
	if have, ok := x.memo[key]; ok {
		return have
	}
	positions := x.find(s, orUnknown)
	slices.Sort(positions)
	out := make([]uint32, 0, len(positions))
	for _, i := range positions {
		if identity.IsPod(x.ids[i]) {
			out = append(out, x.ids[i])
		}
	}
	x.memo[key] = out
	return out
}

// key identifies a selector for the memo.
func (s *podSelector) key(orUnknown bool) string {
	scope := "all"
	switch {
	case s.local:
		scope = "local"
	case s.clusters != nil && orUnknown:
		scope = "known " + s.clusters.text
	case s.clusters != nil:
		scope = "some " + s.clusters.text
	}
	return scope + "\x00" + s.namespace + "\x00" + s.namespaces.String() + "\x00" + s.pods.String()
}

func (x *index) find(s *podSelector, orUnknown bool) []int32 {
	chosen, size := x.findGroups(s, orUnknown)
	if s.pods == nil {
		out := make([]int32, 0, size)
		for _, g := range chosen {
			out = append(out, g.members...)
		}
		return out
	}
	var out []int32
	if candidates, ok := x.candidates(s.pods, size); ok {
		in := make(map[*group]struct{}, len(chosen))
		for _, g := range chosen {
			in[g] = struct{}{}
		}
		for _, i := range candidates {
			if _, ok := in[x.group[i]]; ok && s.pods.matches(x.labels[i]) {
				out = append(out, i)
			}
		}
		return out
	}
	for _, g := range chosen {
		for _, i := range g.members {
			if s.pods.matches(x.labels[i]) {
				out = append(out, i)
			}
		}
	}
	return out
}

// findGroups returns the namespaces a selector chooses, and how many identities they have.
func (x *index) findGroups(s *podSelector, orUnknown bool) (chosen []*group, size int) {
	groups := x.groups
	if s.namespace != "" {
		groups = x.byNamespace[s.namespace]
	}
	for _, g := range groups {
		if !x.inClusters(s, g.cluster, orUnknown) {
			continue
		}
		if !s.namespaces.matches(prefixed{identity.LabelNamespacePrefix, g.labels}) {
			continue
		}
		chosen = append(chosen, g)
		size += len(g.members)
	}
	return chosen, size
}

func (x *index) inClusters(s *podSelector, cluster string, orUnknown bool) bool {
	if s.local {
		return cluster == x.cluster
	}
	if s.clusters == nil {
		return true
	}
	set, known := x.clusters[cluster]
	if !known {
		return orUnknown
	}
	return s.clusters.matches(set)
}

// candidates returns the identities that have a label the selector requires, if that is fewer than to look at size.
func (x *index) candidates(s *selector, size int) ([]int32, bool) {
	if s.key == "" || size <= 64 {
		return nil, false
	}
	values, ok := x.byLabel[s.key]
	if !ok {
		values = map[string][]int32{}
		for i, l := range x.labels {
			if v, has := l[s.key]; has {
				values[v] = append(values[v], int32(i))
			}
		}
		x.byLabel[s.key] = values
	}
	list := values[s.value]
	return list, len(list) < size
}
