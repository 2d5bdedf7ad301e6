// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// policyPlan is the policy's part of the plan: what the engine was given, and what is known of each policy.
type policyPlan struct {
	cluster string
	engine  *policy.Engine
	dirty   bool // the engine was given something since its last step, or asks for another
	named   *namedServices

	identities map[uint32]claim   // whose record is in force
	twins      map[uint32][]claim // all records of numbers that several clusters have records of
	policies   map[string]Policy  // by record key
	blamed     map[string]bool    // record keys of those with a problem
	shared     bool               // policies was handed out: it is cloned before the next change
	said       []string           // problems that are no single policy's
}

func newPolicyPlan(cfg Config, m policy.Remembered, services *service.Planner) *policyPlan {
	p := &policyPlan{
		cluster: cfg.Cluster, dirty: true, identities: map[uint32]claim{}, twins: map[uint32][]claim{}, policies: map[string]Policy{}, blamed: map[string]bool{},
		engine: policy.NewEngine(policy.Config{Cluster: cfg.Cluster, Node: cfg.Node, Limits: cfg.Limits, Remembered: m}),
	}
	p.named = newNamedServices(cfg.Cluster, p.engine, services)
	return p
}

func (p *policyPlan) setCluster(name string, c *record.Cluster) {
	p.dirty = true
	if c == nil {
		p.engine.SetCluster(name, nil)
		return
	}
	labels := c.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	p.engine.SetCluster(name, labels)
}

// claim is a cluster's record of a number.
type claim struct {
	cluster string
	record  *record.Identity
}

// setIdentity takes an identity under its record's key. Records of two clusters have one number for a moment when a cluster
// got another name: the first by name is in force, and the one that goes doesn't take the other's.
func (p *policyPlan) setIdentity(key string, before, now *record.Identity) {
	cluster, id := clusterOf(key), cmp.Or(now, before).ID
	claims := p.twins[id]
	if claims == nil {
		if c, held := p.identities[id]; held {
			claims = []claim{c}
		}
	}
	claims = slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return c.cluster == cluster })
	if now != nil {
		at, _ := slices.BinarySearchFunc(claims, cluster, func(c claim, name string) int { return strings.Compare(c.cluster, name) })
		claims = slices.Insert(claims, at, claim{cluster, now})
	}
	p.dirty = true
	delete(p.twins, id)
	if len(claims) == 0 {
		delete(p.identities, id)
		p.engine.SetIdentity(id, nil)
		return
	}
	if len(claims) > 1 {
		p.twins[id] = claims
	}
	p.identities[id] = claims[0]
	p.engine.SetIdentity(id, claims[0].record.Labels)
}

func (p *policyPlan) setNode(name string, n *record.Node) {
	p.dirty = true
	if n == nil {
		p.engine.SetNode(name, nil)
		return
	}
	p.engine.SetNode(name, &policy.Node{Labels: n.Labels, Addresses: n.Addresses})
}

// setAddresses of a node of any cluster: backends there are told by them.
func (p *policyPlan) setAddresses(was, now *record.Node) {
	p.dirty = p.named.setNode(was, now) || p.dirty
}

// setService says that a service, or what is behind it, is another.
func (p *policyPlan) setService(namespace, name string) {
	p.dirty = p.named.change(namespace, name) || p.dirty
}

func (p *policyPlan) setSubject(id uint32, present bool) {
	p.dirty = true
	p.engine.SetSubject(id, present)
}

func (p *policyPlan) setNamedPorts(id uint32, named map[string][]uint16) {
	p.dirty = true
	p.engine.SetNamedPorts(id, named)
}

// set takes a policy under its record's key; nil removes it.
func (p *policyPlan) set(key string, now *table.Policy) {
	p.dirty = true
	p.unshare()
	if now == nil {
		delete(p.policies, key)
		p.engine.SetPolicy(p.policyKey(key), nil)
		p.named.setPolicy(key, nil)
		return
	}
	p.policies[key] = Policy{Key: key, Revision: now.Provenance.Revision, Content: now.Content()}
	p.engine.SetPolicy(now.Model.Key(), now.Model)
	p.named.setPolicy(key, now.Model)
}

func (p *policyPlan) share() map[string]Policy {
	p.shared = true
	return p.policies
}

func (p *policyPlan) unshare() {
	if p.shared {
		p.policies, p.shared = maps.Clone(p.policies), false
	}
}

// recordPrefix is what a policy's key among records has before its key within the cluster.
func (p *policyPlan) recordPrefix() string { return p.cluster + "/" + record.KindPolicy + "/" }

func (p *policyPlan) policyKey(recordKey string) string { return recordKey[len(p.recordPrefix()):] }

// step gives the next change of the datapath's policy; nil if there is none.
func (p *policyPlan) step() *policy.Delta {
	if !p.dirty {
		return nil
	}
	p.named.tell()
	d := p.engine.Step()
	p.dirty = d.Again
	p.collectProblems()
	return d
}

func (p *policyPlan) collectProblems() {
	p.said = nil
	problems, warnings := map[string][]string{}, map[string][]string{}
	for _, problem := range p.engine.Problems() {
		key := p.recordPrefix() + problem.PolicyKey
		switch {
		case problem.PolicyKey == "":
			p.said = append(p.said, problem.Message)
			continue
		case problem.Warning:
			warnings[key] = append(warnings[key], problem.Message)
		default:
			problems[key] = append(problems[key], problem.Message)
		}
		p.blamed[key] = true
	}
	for key := range p.blamed {
		pol, held := p.policies[key]
		now := pol
		now.Problem, now.Warning = first(problems[key]), first(warnings[key])
		if held && pol != now {
			p.unshare()
			p.policies[key] = now
		}
		if !held || now.Problem == "" && now.Warning == "" {
			delete(p.blamed, key)
		}
	}
}

// first of the messages about a policy, which may have thousands of rules.
func first(messages []string) string {
	switch len(messages) {
	case 0:
		return ""
	case 1:
		return messages[0]
	}
	return fmt.Sprintf("%s (and %d more)", messages[0], len(messages)-1)
}

func describe(r *policy.Rule) table.Rule {
	kind, _, _ := strings.Cut(r.PolicyKey, "/")
	dir := bpf.DirIngress
	if r.Direction == policy.Egress {
		dir = bpf.DirEgress
	}
	return table.Rule{
		Policy: r.PolicyKey, Kind: kind, Namespace: r.Namespace, Name: r.Name, Direction: dir, Description: r.Text,
		Source: r.Provenance.Source, URL: r.Provenance.URL, Revision: r.Provenance.Revision, Path: r.Provenance.Path,
	}
}
