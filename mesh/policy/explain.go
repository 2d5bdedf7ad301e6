// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/fairlead-mesh/fairlead/mesh/identity"

// Explanation says why a connection passes or not.
type Explanation struct {
	Decision
	// Rule that decided; nil if no policy selects the subject, or the peer is its own node or an identity that is not known.
	Rule *Rule
	// Matches are all rules that match the connection and count, the one that decided first.
	Matches []Match
	// Isolation are the rules that deny what nothing allows, whether or not it came to that.
	Isolation []Rule
}

// Match is a rule that matches a connection.
type Match struct {
	Rule     Rule
	Verdict  Verdict // if this rule decides
	specific int
}

// Explain decides a connection, with all rules that matter to it.
func (r *Reference) Explain(c Connection) Explanation {
	var out Explanation
	switch {
	case c.Peer == identity.Host: // the subject's own node
		out.Decision = Decision{Verdict: Allow, ByDefault: true}
		return out
	case !r.knows(c.Peer):
		out.Decision = Decision{Verdict: Deny, ByDefault: true}
		return out
	case !r.clusters.isSubject(c.Subject, r.world.Identities[c.Subject]):
		rule := unknownSubject[c.Dir]
		out.Decision, out.Rule, out.Isolation = Decision{Deny, rule.ID, true}, &rule, []Rule{rule}
		return out
	}
	s := r.ask(c)
	out.Decision, out.Matches = s.decide(), s.matches
	if rule, ok := r.Rules[out.Decision.Rule]; ok {
		out.Rule = &rule
	}
	for _, id := range append(s.enforced, s.audited...) {
		out.Isolation = append(out.Isolation, r.Rules[id])
	}
	return out
}

// knows says whether packets of an identity are judged by policies: those of others are dropped.
func (r *Reference) knows(id uint32) bool {
	switch id {
	case identity.World, identity.RemoteNode, identity.Unknown:
		return true
	}
	_, known := r.world.Identities[id]
	return known && identity.IsPod(id)
}
