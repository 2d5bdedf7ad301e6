// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Explanation says why a connection passes or not.
type Explanation struct {
	Decision
	// Rule that decided; nil if none had to, or the peer is an identity that is not known. One without
	// an ID is a pass of which nobody knows whether it means the peer.
	Rule *Rule
	// Passed is the rule of the Admin tier that left the connection to the next one; nil if none did.
	Passed *Rule
	// Matches are all rules that match the connection and have a say: the one that decided first (unless it is one of
	// Isolation), then the others in the order in which they are asked.
	Matches []Match
	// Isolation are the rules of namespaces' policies that deny what nothing allows, whether or not it came to that.
	Isolation []Rule
}

// Match is a rule that matches a connection.
type Match struct {
	Rule     Rule
	Verdict  Verdict // if it comes to this rule
	specific int
}

// Explain decides a connection, with all rules that matter to it.
func (r *Reference) Explain(c Connection) Explanation {
	var out Explanation
	switch {
	case c.Peer == identity.Host && c.Dir == Ingress: // the subject's own node
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
	o := r.ask(c)
	var a answer
	out.Decision, a = o.decide()
	out.Rule, out.Passed, out.Matches = a.by, a.passed, o.all(a)
	out.Isolation = slices.Concat(o.enforced, o.audited)
	return out
}

// String says in one sentence which rule decided, in which tier, and which one left it to that tier.
func (x *Explanation) String() string {
	var b strings.Builder
	b.WriteString(x.Verdict.String())
	if x.Rule != nil {
		b.WriteString(" by " + x.Rule.title())
	} else {
		b.WriteString(": no policy has a say")
	}
	if x.Passed != nil {
		b.WriteString("; passed to the next tier by " + x.Passed.title())
	}
	return b.String()
}

func (r *Rule) title() string {
	if r.PolicyKey == "" {
		return r.Text
	}
	return r.PolicyKey + ": " + r.Text
}

// knows says whether packets of an identity are judged by policies: those of others are dropped.
func (r *Reference) knows(id uint32) bool {
	switch id {
	case identity.World, identity.RemoteNode, identity.Host, identity.Unknown:
		return true
	}
	_, known := r.world.Identities[id]
	return known && identity.IsPod(id)
}
