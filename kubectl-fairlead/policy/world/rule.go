// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Rule is a policy's rule as people and programs are told of it.
type Rule struct {
	// Policy is the dialect and the name, e.g. "MeshNetworkPolicy shop/api"; empty for rules that are built in.
	Policy  string `json:"policy,omitempty"`
	Dialect string `json:"dialect,omitempty"`
	// Rule is its place in the policy, e.g. "ingress allow[0]", or "ingress isolate" for what denies by default.
	Rule string `json:"rule"`
	Text string `json:"text"`
	Mode string `json:"mode,omitempty"` // Enforce or Audit
	// AuditedBy says who has the policy audited, if others than its own spec do, e.g. "its namespace".
	AuditedBy string `json:"auditedBy,omitempty"`
	Tier      string `json:"tier,omitempty"` // Admin or Baseline; empty: that of namespaces
	Source    string `json:"source,omitempty"`
	URL       string `json:"url,omitempty"`
	Revision  string `json:"revision,omitempty"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
}

// Tell describes a rule of a cluster.
func (c *Cluster) Tell(r policy.Rule) Rule {
	out := Rule{Rule: Place(r), Text: r.Text, Tier: r.Tier.String()}
	if r.PolicyKey == "" {
		return out
	}
	out.Dialect, _, _ = strings.Cut(r.PolicyKey, "/")
	out.Policy, out.Mode = PolicyName(r.PolicyKey), string(v1alpha1.PolicyEnforce)
	if r.Audit {
		out.Mode = string(v1alpha1.PolicyAudit)
	}
	from := r.Provenance
	out.Source, out.URL, out.Revision, out.File = from.Source, from.URL, from.Revision, from.Path
	for _, p := range c.Policies {
		if p.Model.Key() == r.PolicyKey {
			out.Line, out.AuditedBy = p.LineOf(r), AuditedBy(p.Record.Mode)
		}
	}
	return out
}

// AuditedBy names who else than its spec has a policy audited.
func AuditedBy(m record.Mode) string {
	switch {
	case m.ByNamespace && m.ByCluster:
		return "its namespace and the ClusterMesh"
	case m.ByNamespace:
		return "its namespace"
	case m.ByCluster:
		return "the ClusterMesh"
	}
	return ""
}

// Place of a rule in its policy.
func Place(r policy.Rule) string {
	in := ""
	if r.In != "" && r.In != "spec" {
		in = r.In + " "
	}
	if r.Index < 0 {
		return fmt.Sprintf("%s%s %s", in, r.Direction, r.Kind)
	}
	return fmt.Sprintf("%s%s %s[%d]", in, r.Direction, r.Kind, r.Index)
}

// PolicyName writes a policy's key as people do.
func PolicyName(key string) string {
	kind, name, _ := strings.Cut(key, "/")
	return kind + " " + strings.TrimPrefix(name, "-/")
}

// Fields are where a rule may be in a spec, whatever the dialect: lists by kind within a direction, one list a direction, or one
// for its allows and one for its denies.
func Fields(r policy.Rule) []string {
	spec := cmp.Or(r.In, "spec")
	if r.Index < 0 {
		return []string{fmt.Sprintf("%s.%s", spec, r.Direction)}
	}
	kind := r.Kind
	if kind == policy.RuleUnclear {
		kind = policy.RulePass // it was put behind one
	}
	out := []string{
		fmt.Sprintf("%s.%s.%s[%d]", spec, r.Direction, kind, r.Index),
		fmt.Sprintf("%s.%s[%d]", spec, r.Direction, r.Index),
	}
	if kind == policy.RuleDeny && r.In != "" {
		out = slices.Insert(out, 0, fmt.Sprintf("%s.%sDeny[%d]", spec, r.Direction, r.Index))
	}
	return out
}

// LineOf finds a rule in the policy's file, or else the policy; 0 if it is in none.
func (p *Policy) LineOf(r policy.Rule) int {
	if p.Line == nil {
		return 0
	}
	for _, f := range Fields(r) {
		if line, found := p.Line(f); found {
			return line
		}
	}
	line, _ := p.Line("")
	return line
}
