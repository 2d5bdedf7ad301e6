// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// ident is an identity that a packet may bear.
type ident struct {
	id     uint32
	labels labels.Set // of pods; nil: a CIDR, a reserved one, or not known
	ns     *namespace
	nsPos  int   // in ns.members
	cidr   *cidr // nil: not one

	class *class // nil: there was no room, or it was not placed yet
	pos   int    // in class.members
	stamp uint64 // of the last assign that it was a member in
	seen  uint64 // the last computation of members that met it

	row    uint32 // the class in its row
	hasRow bool
	moved  bool // row and class may differ
}

// index finds the identities that selectors choose. Policies are mostly about one namespace, so identities are grouped by
// it; a label that selectors require is indexed when it is first needed.
type index struct {
	clusters *clusters
	pods     map[uint32]*ident
	spaces   []*namespace
	byKey    map[string]*namespace
	byName   map[string][]*namespace
	byLabel  map[string]map[string][]*ident // key → value
	stamp    uint64
}

// namespace is one namespace of one cluster, with one set of labels.
type namespace struct {
	key           string
	cluster, name string
	pos           int // in index.spaces
	labels        labels.Labels
	members       []*ident
	stamp         uint64 // of the last find that chose it
}

// maxLabelKeys bounds how many labels are indexed at once.
const maxLabelKeys = 256

func newIndex(c *clusters) *index {
	return &index{
		clusters: c, pods: map[uint32]*ident{}, byKey: map[string]*namespace{}, byName: map[string][]*namespace{},
		byLabel: map[string]map[string][]*ident{},
	}
}

// add enters a pod identity, which has labels.
func (x *index) add(i *ident) {
	x.pods[i.id] = i
	ns := x.space(i.labels)
	i.ns, i.nsPos = ns, len(ns.members)
	ns.members = append(ns.members, i)
	for key, values := range x.byLabel {
		if v, has := i.labels[key]; has {
			values[v] = append(values[v], i)
		}
	}
}

// remove forgets an identity; its labels must still be those that it was entered with.
func (x *index) remove(i *ident) {
	delete(x.pods, i.id)
	ns := i.ns
	last := len(ns.members) - 1
	ns.members[i.nsPos] = ns.members[last]
	ns.members[i.nsPos].nsPos = i.nsPos
	ns.members[last] = nil
	ns.members = ns.members[:last]
	i.ns = nil
	if last == 0 {
		x.removeSpace(ns)
	}
	for key, values := range x.byLabel {
		v, has := i.labels[key]
		if !has {
			continue
		}
		if n := slices.Index(values[v], i); n >= 0 {
			values[v] = slices.Delete(values[v], n, n+1)
		}
		if len(values[v]) == 0 {
			delete(values, v)
		}
	}
}

func (x *index) space(l labels.Set) *namespace {
	key := namespaceKey(l)
	if ns := x.byKey[key]; ns != nil {
		return ns
	}
	ns := &namespace{
		key: key, cluster: l[identity.LabelCluster], name: l[identity.LabelNamespace], pos: len(x.spaces),
		labels: prefixed{identity.LabelNamespacePrefix, l},
	}
	x.byKey[key] = ns
	x.spaces = append(x.spaces, ns)
	x.byName[ns.name] = append(x.byName[ns.name], ns)
	return ns
}

func (x *index) removeSpace(ns *namespace) {
	delete(x.byKey, ns.key)
	last := len(x.spaces) - 1
	x.spaces[ns.pos] = x.spaces[last]
	x.spaces[ns.pos].pos = ns.pos
	x.spaces[last] = nil
	x.spaces = x.spaces[:last]
	x.byName[ns.name] = slices.DeleteFunc(x.byName[ns.name], func(n *namespace) bool { return n == ns })
	if len(x.byName[ns.name]) == 0 {
		delete(x.byName, ns.name)
	}
}

// namespaceKey separates namespaces by their labels too: identities from before and after a change of a namespace's labels
// exist side by side.
func namespaceKey(l labels.Set) string {
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

// find returns the identities that a selector chooses.
func (x *index) find(s *podSelector, orUnknown bool) []*ident {
	chosen, size := x.findSpaces(s, orUnknown)
	var out []*ident
	if candidates, ok := x.candidates(s.pods, size); ok {
		for _, i := range candidates {
			if i.ns.stamp == x.stamp && s.meansPod(i.labels) {
				out = append(out, i)
			}
		}
	} else {
		if s.pods == nil {
			out = make([]*ident, 0, size)
		}
		for _, ns := range chosen {
			for _, i := range ns.members {
				if s.meansPod(i.labels) {
					out = append(out, i)
				}
			}
		}
	}
	return out
}

// findSpaces returns the namespaces a selector chooses, and how many identities they have.
func (x *index) findSpaces(s *podSelector, orUnknown bool) (chosen []*namespace, size int) {
	x.stamp++
	spaces := x.spaces
	if s.namespace != "" {
		spaces = x.byName[s.namespace]
	}
	for _, ns := range spaces {
		if x.clusters.include(s, ns.cluster, orUnknown) && s.namespaces.matches(ns.labels) {
			ns.stamp = x.stamp
			chosen = append(chosen, ns)
			size += len(ns.members)
		}
	}
	return chosen, size
}

// candidates returns the identities that have a label the selector requires, if that is fewer than to look at size.
func (x *index) candidates(s *selector, size int) ([]*ident, bool) {
	if s == nil || s.key == "" || size <= 64 {
		return nil, false
	}
	values, ok := x.byLabel[s.key]
	if !ok {
		if len(x.byLabel) >= maxLabelKeys {
			clear(x.byLabel)
		}
		values = map[string][]*ident{}
		for _, ns := range x.spaces {
			for _, i := range ns.members {
				if v, has := i.labels[s.key]; has {
					values[v] = append(values[v], i)
				}
			}
		}
		x.byLabel[s.key] = values
	}
	list := values[s.value]
	return list, len(list) < size
}
