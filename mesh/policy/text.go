// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// describe gives each rule a text, which people see beside a verdict, and names its peers.
func (m *Model) describe() {
	for dir, d := range m.dirs {
		if d == nil {
			continue
		}
		for i := range d.rules {
			r := &d.rules[i]
			r.text = m.place() + ruleText(Direction(dir), r)
			r.identify()
		}
	}
}

// identify names the peers of a rule.
func (r *rule) identify() {
	r.key = peersKey(r.peers, r.kind.denies())
	r.pods = peersKey(slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return p.pods == nil }), r.kind.denies())
}

func (m *Model) isolationText(dir Direction) string {
	if len(m.problems) > 0 {
		return m.place() + fmt.Sprintf("the policy is not valid, so it allows no %s: %s", dir, m.problems[0])
	}
	if m.widened {
		return m.place() + fmt.Sprintf("isolates and allows no %s: %s", dir, m.warnings[0])
	}
	if m.tier != TierNamespace {
		return m.place() + fmt.Sprintf("%s that no rule of the policy matches is denied", dir)
	}
	return fmt.Sprintf("isolates: %s that no rule allows is denied", dir)
}

func ruleText(dir Direction, r *rule) string {
	side := "from"
	if dir == Egress {
		side = "to"
	}
	kind := string(r.kind)
	if r.kind == RuleUnclear {
		kind = "deny, because nobody knows whom this passes: pass"
	}
	text := fmt.Sprintf("%s %s %s%s", kind, side, peersText(r), portsText(r))
	if r.name != "" {
		text += fmt.Sprintf(" (%q)", r.name)
	}
	return text
}

// place says where in the order of tiers a policy is judged; nothing for those of namespaces.
func (m *Model) place() string {
	if m.tier == TierNamespace {
		return ""
	}
	return fmt.Sprintf("%s tier, priority %d: ", m.tier, m.priority)
}

func peersText(r *rule) string {
	if r.anyPeer {
		return "anywhere"
	}
	texts := make([]string, len(r.peers))
	for i, p := range r.peers {
		texts[i] = p.String()
	}
	if len(texts) == 0 {
		return "nowhere"
	}
	if r.outside {
		return strings.Join(texts, " or ") + " outside of the mesh"
	}
	return strings.Join(texts, " or ")
}

func portsText(r *rule) string {
	if r.anyPort {
		return ""
	}
	texts := make([]string, len(r.ports))
	for i, p := range r.ports {
		texts[i] = p.String()
	}
	if len(texts) == 0 {
		return " on no port"
	}
	return " on " + strings.Join(texts, ", ")
}

func (p peer) String() string {
	if p.pods != nil {
		return p.pods.String()
	}
	if p.nodes != nil {
		return p.nodes.String()
	}
	if p.isName() {
		return "service " + p.service.String()
	}
	switch p.entity {
	case identity.World:
		return "the world"
	case otherNodes:
		return "other nodes of the mesh"
	case identity.RemoteNode:
		return "nodes of the mesh"
	case identity.Host:
		return "the pod's own node"
	}
	if len(p.except) == 0 {
		return p.cidr.String()
	}
	return fmt.Sprintf("%s except %s", p.cidr, joinPrefixes(p.except))
}

func joinPrefixes(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}

func (s *podSelector) String() string {
	var b strings.Builder
	if s.pods == nil {
		b.WriteString("all pods")
	} else {
		b.WriteString("pods " + s.pods.text)
	}
	if len(s.accounts) > 0 {
		b.WriteString(" of service account " + strings.Join(s.accounts, " or "))
	}
	switch {
	case s.namespace != "":
		b.WriteString(" in namespace " + s.namespace)
	case s.namespaces != nil:
		b.WriteString(" in namespaces " + s.namespaces.text)
	default:
		b.WriteString(" in all namespaces")
	}
	switch {
	case s.local:
	case s.clusters == nil:
		b.WriteString(" of all clusters")
	default:
		b.WriteString(" of clusters " + s.clusters.text)
	}
	return b.String()
}
