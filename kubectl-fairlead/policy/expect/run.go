// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package expect holds policies against what their authors expect of them, without any cluster. It is pure; verdicts come
// from policy/explain, which is to say from the engine.
//
//	policies, pods (Tree) + a File of expectations ── Run ──► Report: passed, failed with the rule that decided, rules never used
package expect

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// Tree is what was found below some paths.
type Tree struct {
	Policies   []*world.Policy
	Namespaces []Namespace
	Pods       []*world.Pod         // without a cluster: of all
	Services   []service.Definition // likewise
	Meshes     []v1alpha1.ClusterMesh
	Files      []File
}

// policyMode is what a cluster's ClusterMesh says of all policies' mode. Where a file names no cluster, the only one is meant.
func (t Tree) policyMode(cluster string, named bool) v1alpha1.PolicyMode {
	for _, m := range t.Meshes {
		if m.Spec.ClusterName == cluster || !named && len(t.Meshes) == 1 {
			return m.Spec.Policy.Mode
		}
	}
	return ""
}

// Namespace of a cluster, or of all.
type Namespace struct {
	Name, Cluster string
	Labels        map[string]string
	Mode          record.NamespaceMode
}

// Report is what came of all expectations.
type Report struct {
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Results []Result `json:"results"`
	// Rules is how many rules the policies have, those that deny by default among them; Unused are those that decided no
	// expectation and passed none to the next tier.
	Rules  int          `json:"rules"`
	Unused []world.Rule `json:"unused,omitempty"`
}

// Result is what came of one expectation.
type Result struct {
	File   string          `json:"file"`
	Line   int             `json:"line"`
	From   string          `json:"from"`
	To     string          `json:"to"`
	Why    string          `json:"why,omitempty"`
	Want   explain.Verdict `json:"want"`
	Got    explain.Verdict `json:"got"`
	By     string          `json:"by,omitempty"` // that was expected to decide
	Passed bool            `json:"passed"`
	// Connections that were judged.
	Connections []explain.Connection `json:"connections"`
	// Message says what is wrong with it.
	Message string `json:"message,omitempty"`
}

// LocalCluster is the name of the only cluster where a file names none.
const LocalCluster = "local"

// Run judges all expectations. Problems are about files that can't be judged.
func Run(t Tree) (Report, []Problem) {
	r := Report{Results: []Result{}}
	var problems []Problem
	rules, used := map[string]world.Rule{}, map[string]bool{}
	for _, f := range t.Files {
		m, err := Mesh(t, f)
		if err != nil {
			problems = append(problems, Problem{f.Path, 1, err.Error()})
			continue
		}
		for _, name := range m.Names() {
			for _, rule := range m.Reference(name).Rules {
				if rule.PolicyKey != "" && rule.Kind != policy.RuleUnclear { // which the engine puts behind passes
					told := m.Clusters[name].Tell(rule)
					rules[told.Policy+" "+told.Rule] = told
				}
			}
		}
		for _, e := range f.Expect {
			result, err := judge(m, f.Path, e, used)
			if err != nil {
				problems = append(problems, Problem{f.Path, e.Line, err.Error()})
				continue
			}
			if result.Passed {
				r.Passed++
			} else {
				r.Failed++
			}
			r.Results = append(r.Results, result)
		}
	}
	r.Rules = len(rules)
	for _, key := range sorted(rules) {
		if !used[key] {
			r.Unused = append(r.Unused, rules[key])
		}
	}
	slices.SortStableFunc(r.Unused, func(a, b world.Rule) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return r, problems
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Mesh puts a file's clusters together.
func Mesh(t Tree, f File) (*world.Mesh, error) {
	m := &world.Mesh{Clusters: map[string]*world.Cluster{}}
	specs := f.Clusters
	if len(specs) == 0 {
		specs = map[string]ClusterSpec{LocalCluster: {}}
	}
	for i, name := range sorted(specs) {
		spec := specs[name]
		c := &world.Cluster{
			Name: name, ID: uint8(i + 1), Labels: spec.Labels, PodCIDRs: spec.PodCIDRs, ServiceCIDRs: spec.ServiceCIDRs,
			Namespaces: map[string]map[string]string{}, Modes: map[string]record.NamespaceMode{}, PolicyMode: t.policyMode(name, len(f.Clusters) > 0),
		}
		for _, ns := range t.Namespaces {
			if ns.Cluster == "" || ns.Cluster == name {
				c.Namespaces[ns.Name], c.Modes[ns.Name] = ns.Labels, ns.Mode
			}
		}
		maps.Copy(c.Namespaces, f.Namespaces)
		described := map[string]bool{}
		for _, p := range slices.Concat(f.Pods, t.Pods) { // the file's word counts more
			key := p.Namespace + "/" + p.Name
			if (p.Cluster == "" || p.Cluster == name) && !described[key] {
				own := *p
				own.Cluster, described[key] = name, true
				c.Pods = append(c.Pods, &own)
			}
		}
		for _, d := range t.Services {
			if d.Cluster == "" || d.Cluster == name {
				d.Cluster = name
				c.Services = append(c.Services, d)
			}
		}
		for _, n := range f.Nodes {
			if n.Cluster == "" || n.Cluster == name {
				own := *n
				own.Cluster = name
				c.Nodes = append(c.Nodes, &own)
			}
		}
		for _, p := range t.Policies {
			if has(f.Path, spec.Policies, p.Record.Provenance.Path) {
				c.Policies = append(c.Policies, p.In(c.ModeOf(p.Record.Namespace)))
			}
		}
		if len(c.Policies) == 0 && len(spec.Policies) > 0 {
			return nil, fmt.Errorf("cluster %s: no policy was read from %s", name, strings.Join(spec.Policies, ", "))
		}
		c.SortPolicies()
		m.Clusters[name] = c
	}
	if err := m.Number(); err != nil {
		return nil, fmt.Errorf("give pods their identities: %w", err)
	}
	return m, nil
}

// has says whether a file lies in one of the folders that are named from a file of expectations on.
func has(from string, folders []string, file string) bool {
	if len(folders) == 0 {
		return true
	}
	return slices.ContainsFunc(folders, func(f string) bool {
		folder := path.Join(path.Dir(from), f)
		return folder == "." || path.Clean(file) == folder || strings.HasPrefix(path.Clean(file), folder+"/")
	})
}

func judge(m *world.Mesh, file string, e Expectation, used map[string]bool) (Result, error) {
	report, err := explain.Explain(m, e.From, e.To)
	if err != nil {
		return Result{}, err
	}
	if len(report.Missing) > 0 {
		return Result{}, fmt.Errorf("%s → %s can't be judged: %s", e.From, e.To, strings.Join(report.Missing, "; "))
	}
	r := Result{
		File: file, Line: e.Line, From: report.From, To: report.To, Why: e.Why, Want: e.Verdict, Got: report.Verdict, By: e.By,
		Connections: report.Connections,
	}
	byIt := e.By == ""
	for _, c := range report.Connections {
		for _, s := range []explain.Side{c.Egress, c.Ingress} {
			if s.Passed != nil {
				used[s.Passed.Policy+" "+s.Passed.Rule] = true
			}
			if s.Rule == nil {
				continue
			}
			key := s.Rule.Policy + " " + s.Rule.Rule
			used[key] = true
			byIt = byIt || s.Verdict == c.Verdict && (key == e.By || s.Rule.Policy == e.By)
		}
	}
	switch {
	case r.Got != r.Want:
		r.Message = fmt.Sprintf("expected %s, is %s", r.Want, r.Got)
	case !byIt:
		r.Message = fmt.Sprintf("is %s as expected, and not by %s", r.Got, e.By)
	default:
		r.Passed = true
	}
	return r, nil
}
