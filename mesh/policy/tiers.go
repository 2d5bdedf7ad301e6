// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Tier is where a policy is judged. docs/decisions/0010 has the rules.
type Tier uint8

// Tiers. Connections are judged in Admin, then by the policies of namespaces (and those of the cluster without a tier),
// then in Baseline.
const (
	TierNamespace Tier = 0
	TierAdmin     Tier = 1
	TierBaseline  Tier = 2
)

func (t Tier) String() string {
	switch t {
	case TierAdmin:
		return "Admin"
	case TierBaseline:
		return "Baseline"
	}
	return ""
}

// maxPriority is that of the policy of a tier that is asked last.
const maxPriority = 1000

// setTier takes over where a policy says that it is judged. One that is not understood is judged first, to be closed there.
func (m *Model) setTier(tier string, priority *int32) {
	switch tier {
	case "":
		if priority != nil {
			m.problem("spec.priority: needs a tier")
		}
		return
	case TierAdmin.String():
		m.tier = TierAdmin
	case TierBaseline.String():
		m.tier = TierBaseline
	default:
		m.tier = TierAdmin
		m.problem("spec.tier: \"" + tier + "\" is neither Admin nor Baseline")
	}
	switch {
	case priority == nil:
		m.problem("spec.priority: is needed with a tier")
	case *priority < 0 || *priority > maxPriority:
		m.problem("spec.priority: is not between 0 and 1000")
	default:
		m.priority = *priority
	}
}

// salvageTier reads where a broken policy is to be closed.
func (m *Model) salvageTier(fields map[string]json.RawMessage) {
	var tier string
	var priority *int32
	if text, present := fields["tier"]; present && json.Unmarshal(text, &tier) != nil {
		m.tier = TierAdmin // the problem was found already
		return
	}
	if text, present := fields["priority"]; present && json.Unmarshal(text, &priority) != nil {
		priority = nil
	}
	m.setTier(tier, priority)
}

// byTier splits policies, which are in the order of their keys, and orders those of a tier as they are asked.
func byTier[P interface{ of() *Model }](policies []P) (out [3][]P) {
	for _, p := range policies {
		t := p.of().tier
		out[t] = append(out[t], p)
	}
	for _, t := range []Tier{TierAdmin, TierBaseline} {
		slices.SortStableFunc(out[t], func(a, b P) int {
			x, y := a.of(), b.of()
			return cmp.Or(cmp.Compare(x.priority, y.priority), cmp.Compare(x.rec.Name, y.rec.Name))
		})
	}
	return out
}

func (m *Model) of() *Model     { return m }
func (p *installed) of() *Model { return p.model }

// isolatesOwnNode says whether a policy isolates its subjects, in a direction, from their own node as well.
func (m *Model) isolatesOwnNode(dir Direction) bool {
	d := m.dirs[dir]
	return d.isolates && d.ownNode
}

// isolating orders policies as isolation is blamed on them: first on those that mean the own node as well.
func isolating[P interface{ of() *Model }](policies []P, dir Direction) []P {
	out := slices.Clone(policies)
	rank := func(p P) int {
		if p.of().isolatesOwnNode(dir) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(out, func(a, b P) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

// verdict of a rule's lines.
func verdict(kind RuleKind, audit bool) Verdict {
	switch {
	case kind == RuleAllow && audit:
		return AuditAllow
	case kind == RuleAllow:
		return Allow
	case kind == RulePass && audit:
		return AuditPass
	case kind == RulePass:
		return Pass
	case audit:
		return AuditDeny
	}
	return Deny
}

// inBaseline is the verdict of a Baseline line: it has no tier to pass to, and what no tier decides is allowed.
func (v Verdict) inBaseline() Verdict {
	switch v {
	case Pass:
		return Allow
	case AuditPass:
		return AuditAllow
	}
	return v
}

// forUnclearPeers is the verdict of a line whose peers are not known. False: the line is left out.
func (v Verdict) forUnclearPeers() (Verdict, bool) {
	switch v {
	case Allow, AuditAllow:
		return 0, false
	case Pass:
		return Deny, true
	case AuditPass:
		return AuditDeny, true
	}
	return v, true
}

// endChunk adds lines that match nothing until a chunk is full: a pass leads to the chunk behind its tier. That each scan begins
// with the first line of a chunk makes it as cheap to verify, and to run, as one without tiers.
func endChunk(lines []Line) []Line {
	for len(lines)%LinesPerChunk > 0 {
		lines = append(lines, Line{From: 1})
	}
	return lines
}

// level orders the verdicts of namespaces' policies: a deny wins over an audit-deny, which wins over an allow. An allow of
// audit that enforcing policies don't heed comes last.
func (v Verdict) level() int {
	switch v {
	case AuditAllow:
		return 3
	case Allow:
		return 2
	case AuditDeny:
		return 1
	}
	return 0
}

// effective is the verdict of a namespace's policy that the kernel is given. An allow in Audit mode is an ordinary one where no
// enforcing policy isolates the subject and no Baseline follows: what it opens is open anyway.
func (v Verdict) effective(enforced, baseline bool) Verdict {
	if v == AuditAllow && !enforced && !baseline {
		return Allow
	}
	return v
}

// draftTiers makes the lines of a profile tier by tier, and says what holds where none decides.
func (e *Engine) draftTiers(p *profile) {
	tiers := byTier(p.policies)
	admin, baseline := tiers[TierAdmin], tiers[TierBaseline]
	e.draftOrdered(p, admin)
	var enforced, audited []*installed
	for _, pol := range isolating(tiers[TierNamespace], p.dir) {
		if id := pol.ids.isolate[p.dir]; id != 0 && pol.model.audit {
			audited = append(audited, pol)
		} else if id != 0 {
			enforced = append(enforced, pol)
		}
	}
	// Only where an administrator's policy in Audit mode passes can allows of audit matter to isolated subjects: to what
	// would be, had it not been allowed before. Or to what the Baseline says of the own node, or isolation in Audit mode.
	ownNode := len(enforced) > 0 && enforced[0].model.isolatesOwnNode(p.dir)
	ownAudited := !ownNode && len(audited) > 0 && audited[0].model.isolatesOwnNode(p.dir)
	heeded := len(enforced) == 0 || ownAudited || p.dir == Egress && len(baseline) > 0 || slices.ContainsFunc(admin, func(pol *installed) bool { return pol.model.audit })
	from := len(p.draft)
	for _, pol := range tiers[TierNamespace] {
		rules := pol.model.dirs[p.dir].rules
		for i := range rules {
			v := pol.model.verdict(rules[i].kind).effective(len(enforced) > 0, len(baseline) > 0)
			if v == AuditAllow && !heeded {
				continue // it opens nothing that an enforcing policy keeps closed
			}
			e.draftRule(p, pol, &rules[i], Line{Verdict: v, Rule: pol.ids.rules[p.dir][i]})
		}
	}
	slices.SortStableFunc(p.draft[from:], func(a, b draftLine) int {
		return cmp.Or(cmp.Compare(a.Verdict.level(), b.Verdict.level()), cmp.Compare(b.specificity(), a.specificity()))
	})
	isolate := func(v Verdict, by *installed) {
		p.draft = append(p.draft, draftLine{Line: Line{Verdict: v, Rule: by.ids.isolate[p.dir]}, policy: by, tier: TierNamespace})
	}
	if ownAudited && len(enforced)+len(baseline) > 0 {
		// The subject's flags are about what enforces, or there are lines behind: so isolation is one that names the node.
		own := rule{kind: RuleDeny, peers: []peer{{entity: identity.Host}}, anyPort: true}
		own.identify()
		e.draftRule(p, audited[0], &own, Line{Verdict: AuditDeny, Rule: audited[0].ids.isolate[p.dir]})
	}
	switch {
	case len(enforced) > 0 && p.dir == Egress && len(baseline) > 0 && !ownNode:
		isolate(Deny, enforced[0]) // a line, because Baseline decides about the own node
	case len(enforced) > 0:
		p.base = Subject{Isolated: true, Closed: ownNode, DefaultRule: enforced[0].ids.isolate[p.dir]}
		return
	case len(audited) > 0 && len(baseline) == 0:
		p.base = Subject{Isolated: true, Audit: true, Closed: ownAudited, DefaultRule: audited[0].ids.isolate[p.dir]}
	case len(audited) > 0:
		isolate(AuditDeny, audited[0]) // Baseline still decides, but would not if the policy enforced
	}
	e.draftOrdered(p, baseline)
}

// draftOrdered adds the lines of policies of which the first rule that matches decides.
func (e *Engine) draftOrdered(p *profile, policies []*installed) {
	for _, pol := range policies {
		d, ids := pol.model.dirs[p.dir], pol.ids
		decide := func(kind RuleKind) Verdict {
			v := pol.model.verdict(kind)
			if pol.model.tier == TierBaseline {
				v = v.inBaseline()
			}
			return v
		}
		for i := range d.rules {
			e.draftRule(p, pol, &d.rules[i], Line{Verdict: decide(d.rules[i].kind), Rule: ids.rules[p.dir][i]})
		}
		if d.isolates {
			p.draft = append(p.draft, draftLine{Line: Line{Verdict: decide(RuleIsolate), Rule: ids.isolate[p.dir]}, policy: pol, tier: pol.model.tier})
		}
	}
}

// splitPasses prepares the passes of Admin for those of whom nobody knows whether they are meant: pods with labels that identities
// leave out, and pods of clusters whose labels are not known. Behind each pass stands a rule that denies them, because the
// tiers may decide differently. So it is with subjects that may not be meant. In Baseline a pass allows, and means those only
// that are meant for sure.
func (m *Model) splitPasses() {
	for _, d := range m.dirs {
		if d == nil {
			continue
		}
		rules := make([]rule, 0, len(d.rules))
		for _, r := range d.rules {
			if r.kind != RulePass {
				rules = append(rules, r)
				continue
			}
			// Numbers first: of everybody they are sure, names only of those who have them.
			slices.SortStableFunc(r.ports, func(a, b port) int { return min(len(a.name), 1) - min(len(b.name), 1) })
			doubt := r
			doubt.kind, doubt.peers = RuleUnclear, nil
			for _, p := range r.peers {
				if m.widened || p.unclear || p.pods != nil && p.pods.clusters != nil {
					doubt.peers = append(doubt.peers, p)
				}
			}
			r.peers = slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return p.unclear })
			if !m.widened {
				rules = append(rules, r)
			}
			doubt.anyPeer = doubt.anyPeer && m.widened
			if m.tier == TierAdmin && (doubt.anyPeer || len(doubt.peers) > 0) {
				rules = append(rules, doubt)
			}
		}
		d.rules = rules
	}
}

// denies says whether a rule is about all who may be meant.
func (k RuleKind) denies() bool { return k == RuleDeny || k == RuleUnclear }

// closing is what a rule becomes of which nobody knows whom it is about: allowing nobody, or denying everybody. A pass
// denies, for nobody knows what is behind it.
func (k RuleKind) closing() RuleKind {
	if k == RuleAllow {
		return RuleAllow
	}
	return RuleDeny
}
