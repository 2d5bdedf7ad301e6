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
		if !matchesAny(s.reference([]*policy.Model{m}), r, s) {
			l.find(CodePeerNever, p, name, fields, "the peer can't mean anybody", "correct its selectors, or delete it")
			continue
		}
		if len(w.cidrs) == 0 && !l.matchesPod(r, m, s) {
			l.find(CodePeerNobody, p, name, fields, "the peer means no pod that there is", "see whether its labels and namespaces are spelt as the pods' are, or delete it")
		}
	}
}

func matchesAny(ref *policy.Reference, r policy.Rule, s *sample) bool {
	found, left := false, budget
	s.connections(r.Direction, func(c policy.Connection) bool {
		left--
		_, found = matching(ref.Explain(c), r)
		return !found && left > 0
	})
	return found || left <= 0
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
	real := *s
	real.world = l.mesh.World(l.cluster.Name)
	real.peers = nil
	for id := range real.world.Identities {
		real.peers = append(real.peers, policy.Connection{Peer: id})
		if r.Direction == policy.Egress { // names of ports are the peer's: whichever number it has, it has one
			real.world.NamedPorts[id] = s.world.NamedPorts[s.subjects[0]]
		}
	}
	// Subjects are made up, so that a policy that selects nobody yet has the peers that it would have.
	real.subjects = nil
	next := uint16(identity.LastLocal)
	for _, id := range s.subjects {
		made := identity.Of(max(l.cluster.ID, 1), next)
		for real.world.Identities[made] != nil {
			next--
			made = identity.Of(max(l.cluster.ID, 1), next)
		}
		next--
		real.world.Identities[made] = s.world.Identities[id]
		real.world.NamedPorts[made] = s.world.NamedPorts[id]
		real.subjects = append(real.subjects, made)
	}
	return matchesAny(real.reference([]*policy.Model{m}), r, &real)
}

// specText writes a spec that was read from JSON, which can't fail.
func specText(spec map[string]any) []byte {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil
	}
	return text
}
