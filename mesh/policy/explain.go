// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
)

// Explanation says why a connection passes or not.
type Explanation struct {
	Decision
	// Rule that decided; nil if no policy selects the subject, or the peer is its own node or unknown.
	Rule *Rule
	// Matches are all entries that match the connection, the one that decided first.
	Matches []Match
	// Isolation are the rules that deny what nothing allows, whether or not it came to that.
	Isolation []Rule
}

// Match is an entry that matches a connection, with its rule.
type Match struct {
	EntryKey
	Entry
	Rule Rule
}

// Explain evaluates a connection and tells all that had a say.
func (r *Result) Explain(subject, peer uint32, dir Direction, proto uint8, port uint16) Explanation {
	out := Explanation{Decision: r.Evaluate(subject, peer, dir, proto, port)}
	if rule, ok := r.Rules[out.Decision.Rule]; ok {
		out.Rule = &rule
	}
	r.candidates(subject, peer, dir, proto, port, func(k EntryKey, e Entry) {
		out.Matches = append(out.Matches, Match{k, e, r.Rules[e.Rule]})
	})
	slices.SortStableFunc(out.Matches, func(a, b Match) int {
		return cmp.Or(cmp.Compare(b.Precedence, a.Precedence), cmp.Compare(b.Verdict.strictness(), a.Verdict.strictness()))
	})
	for _, id := range r.Isolation[SubjectKey{subject, dir}] {
		out.Isolation = append(out.Isolation, r.Rules[id])
	}
	return out
}
