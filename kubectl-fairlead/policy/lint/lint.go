// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lint finds what is likely a mistake in policies that are valid: rules that change nothing, selectors and peers that
// mean nobody. It is pure, and evaluates nothing itself: it asks the engine about made-up connections, with a rule and without
// it, so that a new dialect or a new order of rules needs nothing here.
//
//	world.Mesh ── Run ──► Findings
//	a rule ── witness.go: pods, addresses and ports that tell rules apart ──► rules.go: does any verdict rest on the rule?
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Code of a finding. Codes never change their meaning; docs/reference/policy-commands.md explains each.
type Code string

// Codes.
const (
	CodeInvalid      Code = "policy-invalid"
	CodeWarning      Code = "policy-warning"
	CodeLeftOut      Code = "label-left-out"
	CodeSelectsNone  Code = "selects-nobody"
	CodePeerNobody   Code = "peer-matches-nobody"
	CodeNeverMatches Code = "rule-never-matches"
	CodePeerNever    Code = "peer-never-matches"
	CodeShadowed     Code = "rule-shadowed"
	CodeRedundant    Code = "rule-redundant"
	CodeDenyDefault  Code = "deny-by-default-too"
	CodeNotJudged    Code = "rule-not-judged"

	CodeEqualPriority Code = "equal-priority"
	CodeOnlyUnknown   Code = "rule-only-for-unknown"
)

// Severity of a finding.
type Severity string

// Severities. Information makes the command fail no script.
const (
	Error       Severity = "error"
	Warning     Severity = "warning"
	Information Severity = "info"
)

var severities = map[Code]Severity{
	CodeInvalid: Error, CodeWarning: Warning, CodeLeftOut: Warning, CodeSelectsNone: Warning, CodePeerNobody: Warning,
	CodeNeverMatches: Error, CodePeerNever: Error, CodeShadowed: Warning, CodeRedundant: Warning,
	CodeDenyDefault: Information, CodeNotJudged: Information, CodeEqualPriority: Warning, CodeOnlyUnknown: Warning,
}

// Codes lists every code.
func Codes() []Code {
	return []Code{CodeInvalid, CodeWarning, CodeLeftOut, CodeSelectsNone, CodePeerNobody, CodeNeverMatches, CodePeerNever,
		CodeShadowed, CodeRedundant, CodeDenyDefault, CodeNotJudged, CodeEqualPriority, CodeOnlyUnknown}
}

// Finding is one thing to look at.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Policy   string   `json:"policy"`
	Rule     string   `json:"rule,omitempty"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Revision string   `json:"revision,omitempty"`
	Clusters []string `json:"clusters,omitempty"` // where it was found; of live ones only
	Message  string   `json:"message"`
	Next     string   `json:"next"` // what to do
}

// Report is all findings.
type Report struct {
	Policies int       `json:"policies"`
	Findings []Finding `json:"findings"`
	// Skipped says what was not looked for, and why.
	Skipped []string `json:"skipped,omitempty"`
}

// ExitCode of the command: 1 if a finding is worse than information.
func (r Report) ExitCode() int {
	if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Information }) {
		return 1
	}
	return 0
}

// Run looks at the policies of every cluster of some meshes. From files, a finding must hold in each cluster that has the
// policy; of live clusters each counts.
func Run(meshes ...*world.Mesh) Report {
	r := Report{Findings: []Finding{}}
	judged := map[string]int{} // clusters that have a policy
	found := map[string]int{}  // and those with a finding
	var order []Finding
	live, pods := false, false
	for _, m := range meshes {
		m = asEnforced(m)
		for _, name := range m.Names() {
			c := m.Clusters[name]
			live, pods = live || c.Live(), pods || len(c.Pods) > 0
			l := linter{mesh: m, cluster: c}
			for _, p := range c.Policies {
				judged[p.Model.Key()] += 0
				if l.applies(p) {
					judged[p.Model.Key()]++
				}
			}
			for _, missing := range c.Missing {
				r.Skipped = append(r.Skipped, "cluster "+name+": "+missing)
			}
			for _, f := range l.run() {
				key := strings.Join([]string{string(f.Code), f.Policy, f.Rule, f.Message}, "\x00")
				if found[key]++; found[key] == 1 {
					order = append(order, f)
				}
				at := slices.IndexFunc(order, func(o Finding) bool {
					return o.Code == f.Code && o.Policy == f.Policy && o.Rule == f.Rule && o.Message == f.Message
				})
				if c.Live() {
					order[at].Clusters = append(order[at].Clusters, name)
				}
			}
		}
	}
	r.Policies = len(judged)
	for _, f := range order {
		key := strings.Join([]string{string(f.Code), f.Policy, f.Rule, f.Message}, "\x00")
		if live || found[key] >= judged[keyOf(f.Policy)] {
			r.Findings = append(r.Findings, f)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule))
	})
	if !pods {
		r.Skipped = append(r.Skipped, fmt.Sprintf("%s and %s: no pods are described", CodeSelectsNone, CodePeerNobody))
	}
	return r
}

// asEnforced is a mesh where policies enforce unless they say otherwise themselves: what is wrong with a rule is so whether or
// not its namespace or its cluster has it audited for a while.
func asEnforced(m *world.Mesh) *world.Mesh {
	out := &world.Mesh{Clusters: map[string]*world.Cluster{}}
	for name, c := range m.Clusters {
		own := *c
		own.Policies = nil
		for _, p := range c.Policies {
			own.Policies = append(own.Policies, p.In(record.Mode{}))
		}
		out.Clusters[name] = &own
	}
	return out
}

// keyOf turns a policy's name back into its key.
func keyOf(name string) string {
	kind, rest, _ := strings.Cut(name, " ")
	if !strings.Contains(rest, "/") {
		rest = "-/" + rest
	}
	return kind + "/" + rest
}

type linter struct {
	mesh     *world.Mesh
	cluster  *world.Cluster
	findings []Finding
}

func (l *linter) run() []Finding {
	for _, p := range l.cluster.Policies {
		l.policy(p)
	}
	l.rules()
	l.priorities()
	return l.findings
}

// applies says whether a policy selects pods of the cluster at all.
func (l *linter) applies(p *world.Policy) bool {
	_, applies := l.mesh.Reference(l.cluster.Name).PolicySubjects[p.Model.Key()]
	return applies
}

// find adds a finding about a policy, or a rule or field of it.
func (l *linter) find(code Code, p *world.Policy, rule string, fields []string, message, next string) {
	from := p.Record.Provenance
	f := Finding{
		Code: code, Severity: severities[code], Policy: world.PolicyName(p.Model.Key()), Rule: rule, File: from.Path, Revision: from.Revision,
		Message: message, Next: next,
	}
	if p.Line != nil {
		f.Line, _ = p.Line("")
		for _, field := range fields {
			if line, has := p.Line(field); has {
				f.Line = line
				break
			}
		}
	}
	l.findings = append(l.findings, f)
}

// policy looks at what the engine says of a policy, at its labels and at whom it selects.
func (l *linter) policy(p *world.Policy) {
	for _, problem := range p.Model.Problems() {
		field, _, _ := strings.Cut(problem.Message, ": ")
		switch {
		case !problem.Warning:
			l.find(CodeInvalid, p, "", []string{field}, problem.Message, "correct it: until then the policy denies its pods everything in the directions that it names")
		case leftOut(problem.Message):
			l.find(CodeLeftOut, p, "", []string{field}, problem.Message, "select pods by labels that identities have: docs/concepts/identity.md")
		default:
			l.find(CodeWarning, p, "", []string{field}, problem.Message, "the policy is in force, and not quite as it is written")
		}
	}
	if why := l.cluster.ModeOf(p.Record.Namespace).Problem; why != "" {
		l.find(CodeWarning, p, "", nil, why, "correct the annotation: until then it is as if it was not there")
	}
	if len(l.cluster.Pods) == 0 || len(l.cluster.Missing) > 0 {
		return
	}
	n, applies := l.mesh.Reference(l.cluster.Name).PolicySubjects[p.Model.Key()]
	if applies && n == 0 {
		l.find(CodeSelectsNone, p, "", []string{"spec.podSelector", "spec.subject"}, "the policy selects no pod", "see whether its namespace and its selector's labels are spelt as the pods' are, or delete it")
	}
}

// leftOut says whether a warning is about a label that identities leave out, by the label that it names.
func leftOut(message string) bool {
	_, rest, _ := strings.Cut(message, "label ")
	key, _, _ := strings.Cut(rest, " ")
	_, is := identity.Excluded(key)
	return is
}

// oneList says whether a policy has one list for all kinds of rules of a direction, by its key.
func oneList(key string) bool {
	kind, _, _ := strings.Cut(key, "/")
	return kind == policy.KindNetworkPolicy || kind == policy.KindClusterNetworkPolicy
}

// rulesOf are a policy's own rules as the engine has them, but for those that deny by default and those that the engine puts
// behind passes. Those of a list are in its order, whatever the dialect.
func rulesOf(r *policy.Reference, key string) []policy.Rule {
	var out []policy.Rule
	for _, rule := range r.Rules {
		if rule.PolicyKey == key && rule.Index >= 0 && rule.Kind != policy.RuleUnclear {
			out = append(out, rule)
		}
	}
	slices.SortFunc(out, func(a, b policy.Rule) int {
		if oneList(key) {
			return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Index, b.Index))
		}
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Index, b.Index))
	})
	return out
}
