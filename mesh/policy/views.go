// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// opinion is what all policies together have to say about a connection.
type opinion struct {
	dir               Direction
	ordered           [3][]Match // of Admin and Baseline, as they are asked
	matches           []Match    // of namespaces, the one that decides first
	enforced, audited []Rule     // that isolate
	baseline          bool       // a policy of Baseline selects the subject
	spared            bool       // denials that don't name the peer don't mean it: it is the subject's own node
	ownNode           bool       // isolation does, all the same
	ownAudited        bool       // that of a policy in Audit mode would
}

func (r *Reference) ask(c Connection) opinion {
	o := opinion{dir: c.Dir, spared: c.Peer == identity.Host}
	subject := r.world.Identities[c.Subject]
	var policies []numbered
	for _, p := range r.policies {
		if p.dirs[c.Dir] != nil && r.clusters.selects(&p.subjects, subject, true) {
			policies = append(policies, p)
		}
	}
	tiers := byTier(policies)
	for _, tier := range []Tier{TierAdmin, TierBaseline} {
		for _, p := range tiers[tier] {
			matches := r.matching(p, c)
			if p.dirs[c.Dir].isolates && !o.spared {
				matches = append(matches, Match{Rule: r.Rules[p.ids.isolate[c.Dir]], Verdict: p.verdict(RuleIsolate)})
			}
			o.ordered[tier] = append(o.ordered[tier], matches...)
		}
	}
	o.baseline = len(tiers[TierBaseline]) > 0
	for _, p := range tiers[TierNamespace] {
		own := p.isolatesOwnNode(c.Dir)
		o.ownNode, o.ownAudited = o.ownNode || own && !p.audit, o.ownAudited || own && p.audit
	}
	for _, p := range isolating(tiers[TierNamespace], c.Dir) {
		if id := p.ids.isolate[c.Dir]; id != 0 && p.audit {
			o.audited = append(o.audited, r.Rules[id])
		} else if id != 0 {
			o.enforced = append(o.enforced, r.Rules[id])
		}
	}
	for _, p := range tiers[TierNamespace] {
		o.matches = append(o.matches, r.matching(p, c)...)
	}
	for i := range o.matches {
		m := &o.matches[i]
		m.Verdict = m.Verdict.effective(len(o.enforced) > 0, o.baseline)
	}
	slices.SortStableFunc(o.matches, func(a, b Match) int {
		return cmp.Or(cmp.Compare(a.Verdict.level(), b.Verdict.level()), cmp.Compare(b.specific, a.specific))
	})
	return o
}

// matching are the rules of a policy that match a connection.
func (r *Reference) matching(p numbered, c Connection) []Match {
	var out []Match
	d := p.dirs[c.Dir]
	for i := range d.rules {
		m, everybody, ok := r.match(&d.rules[i], d, c)
		kind := d.rules[i].kind
		m.Rule = r.Rules[p.ids.rules[c.Dir][i]]
		if kind == RulePass && c.Peer == identity.Unknown && !everybody {
			// Nobody knows whether it passes. In Baseline a pass allows, and no allow of somebody means an unknown peer.
			ok = ok && p.tier != TierBaseline
			kind, m.Rule.ID = RuleUnclear, 0
		}
		if ok && (!everybody || !kind.denies() || c.Peer != identity.Host || d.ownNode) {
			m.Verdict = p.verdict(kind)
			out = append(out, m)
		}
	}
	return out
}

// answer is what becomes of a connection in one view, and why.
type answer struct {
	verdict   Verdict // Allow or Deny
	by        *Rule   // nil: nothing decided
	byDefault bool
	passed    *Rule // that left it to the next tier
}

// decide asks what enforcing policies say, and what all of them would if those in Audit mode enforced. Where only the second
// answer is deny, the connection passes and is reported.
func (o *opinion) decide() (Decision, answer) {
	a := o.view(false)
	d := Decision{Verdict: a.verdict, ByDefault: a.byDefault}
	if a.verdict != Deny {
		if all := o.view(true); all.verdict == Deny {
			a = all
			d = Decision{Verdict: AuditDeny, ByDefault: a.byDefault}
		}
	}
	if a.by != nil {
		d.Rule = a.by.ID
	}
	return d, a
}

// view judges a connection tier by tier, with policies in Audit mode as if they enforced, or without them.
func (o *opinion) view(audit bool) (out answer) {
	for _, m := range o.ordered[TierAdmin] {
		v, counts := m.Verdict.in(audit)
		if !counts {
			continue
		}
		if v == Pass {
			out.passed = &m.Rule
			break
		}
		out.verdict, out.by = v, &m.Rule
		return out
	}
	for _, m := range o.matches {
		if v, counts := m.Verdict.in(audit); counts {
			out.verdict, out.by = v, &m.Rule
			return out
		}
	}
	isolation := o.enforced
	if audit {
		isolation = slices.Concat(o.enforced, o.audited)
	}
	named := o.spared && !o.ownNode // isolation must mean the own node, and none that enforces does
	if named {
		isolation = nil
		if audit && o.ownAudited {
			isolation = o.audited
		}
	}
	if len(isolation) > 0 {
		// With a Baseline behind it that may be asked, isolation is a line as any other. So it is where it is about the own node alone.
		out.verdict, out.by, out.byDefault = Deny, &isolation[0], !o.baseline || len(o.enforced) > 0 && (o.dir == Ingress || o.ownNode)
		out.byDefault = out.byDefault && !(named && len(o.enforced) > 0)
		return out
	}
	for _, m := range o.ordered[TierBaseline] {
		if v, counts := m.Verdict.in(audit); counts {
			out.verdict, out.by = v.inBaseline(), &m.Rule
			return out
		}
	}
	out.verdict, out.byDefault = Allow, true
	return out
}

// in says what a verdict is in a view, and whether it counts there.
func (v Verdict) in(audit bool) (Verdict, bool) {
	switch v {
	case AuditDeny:
		return Deny, audit
	case AuditAllow:
		return Allow, audit
	case AuditPass:
		return Pass, audit
	}
	return v, true
}

// all are the matches that have a say, in the order in which they are asked, but the one that decides first. An audit policy
// of a namespace opens nothing that an enforcing one keeps closed, and reports only what passes otherwise.
func (o *opinion) all(a answer) []Match {
	own := slices.Clone(o.matches)
	if len(o.enforced) > 0 {
		allowed := slices.ContainsFunc(own, func(m Match) bool { return m.Verdict == Allow })
		own = slices.DeleteFunc(own, func(m Match) bool {
			mute := m.Verdict == AuditAllow || m.Verdict == AuditDeny && !allowed
			return mute && (a.by == nil || m.Rule.ID != a.by.ID)
		})
	}
	out := slices.Concat(o.ordered[TierAdmin], own)
	if len(o.enforced) == 0 || o.spared && !o.ownNode {
		out = append(out, o.ordered[TierBaseline]...)
	}
	if a.by == nil {
		return out
	}
	at := slices.IndexFunc(out, func(m Match) bool { return m.Rule.ID == a.by.ID })
	if at < 0 {
		return out // isolation
	}
	first := out[at]
	return slices.Insert(slices.Delete(out, at, at+1), 0, first)
}
