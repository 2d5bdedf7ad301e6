// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"encoding/json"
	"fmt"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// peers looks at each peer of a rule by itself: whether it can mean anybody, and whether it means any pod that there is.
func (l *linter) peers(p *world.Policy, r policy.Rule, s *sample) {
	field, n := peersOf(p, r)
	for i := range n {
		m, w := withPeer(p, r, field, i)
		var fields []string
		for _, f := range world.Fields(r) {
			fields = append(fields, fmt.Sprintf("%s.%s[%d]", f, field, i))
		}
		name := fmt.Sprintf("%s, %s[%d]", world.Place(r), field, i)
		if !s.matchesAny(s.reference([]*policy.Model{m}, s.names), r) {
			l.find(CodePeerNever, p, name, fields, "the peer can't mean anybody", "correct its selectors, or delete it")
			continue
		}
		if len(w.cidrs) == 0 && !l.matchesPod(r, m, s) {
			l.find(CodePeerNobody, p, name, fields, "the peer means no pod that there is", "see whether its labels and namespaces are spelt as the pods' are, or delete it")
		}
	}
}

// matchesPod holds the peer against the pods of all clusters that are known. Where some are not, it may mean theirs.
func (l *linter) matchesPod(r policy.Rule, m *policy.Model, s *sample) bool {
	if len(l.cluster.Pods) == 0 || len(l.cluster.Missing) > 0 {
		return true
	}
	for name := range l.cluster.Others {
		if l.mesh.Clusters[name] == nil {
			return true
		}
	}
	actual := *s
	actual.world = l.mesh.World(l.cluster.Name)
	actual.peers = nil
	for id := range actual.world.Identities {
		actual.peers = append(actual.peers, policy.Connection{Peer: id})
	}
	// Subjects are made up, so that a policy that selects nobody yet has the peers that it would have.
	actual.subjects = nil
	next := uint16(identity.LastLocal)
	for _, id := range s.subjects {
		made := identity.Of(max(l.cluster.ID, 1), next)
		for actual.world.Identities[made] != nil {
			next--
			made = identity.Of(max(l.cluster.ID, 1), next)
		}
		next--
		actual.world.Identities[made] = s.world.Identities[id]
		actual.subjects = append(actual.subjects, made)
	}
	return actual.matchesAny(actual.reference([]*policy.Model{m}, s.names), r)
}

// specText writes a spec that was read from JSON, which can't fail.
func specText(spec map[string]any) []byte {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil
	}
	return text
}
