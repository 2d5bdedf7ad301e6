// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// clusters knows the labels of the mesh's clusters.
type clusters struct {
	local  string
	labels map[string]labels.Set
}

func newClusters(local string) *clusters {
	return &clusters{local: local, labels: map[string]labels.Set{}}
}

// set remembers a cluster's labels; nil removes it.
func (c *clusters) set(name string, l map[string]string) {
	if l == nil {
		delete(c.labels, name)
		return
	}
	set := make(labels.Set, len(l)+1)
	maps.Copy(set, l)
	set[identity.LabelCluster] = name
	c.labels[name] = set
}

// include says whether a selector is about pods of a cluster. orUnknown says whether a selector of clusters also chooses
// those of unknown labels: a deny rule had better.
func (c *clusters) include(s *podSelector, cluster string, orUnknown bool) bool {
	if s.local {
		return cluster == c.local
	}
	if s.clusters == nil {
		return true
	}
	set, known := c.labels[cluster]
	if !known {
		return orUnknown
	}
	return s.clusters.matches(set)
}

// applies says whether a policy has subjects in the local cluster at all, and what is uncertain about it.
func (c *clusters) applies(m *Model) (applies bool, problem string) {
	if m.clusters == nil {
		return true, ""
	}
	set, known := c.labels[c.local]
	if !known {
		return true, fmt.Sprintf("spec.clusterSelector: the labels of cluster %s are not known (yet); the policy is applied", c.local)
	}
	return m.clusters.matches(set), ""
}

// selects says whether a selector chooses an identity, by the identity's labels.
func (c *clusters) selects(s *podSelector, l labels.Set, orUnknown bool) bool {
	if s.namespace != "" && l[identity.LabelNamespace] != s.namespace {
		return false
	}
	return c.include(s, l[identity.LabelCluster], orUnknown) && s.meansPod(l) &&
		(s.namespaces == nil || s.namespaces.matches(prefixed{identity.LabelNamespacePrefix, l}))
}

// isSubject says whether an identity, which has labels, is one of the local cluster's pods.
func (c *clusters) isSubject(id uint32, l labels.Set) bool {
	return identity.IsPod(id) && l[identity.LabelCluster] == c.local
}
