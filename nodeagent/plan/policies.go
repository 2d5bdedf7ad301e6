// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// policyPlan plans policy in two phases, as policy.Delta wants it: what comes before the switch of subjects is written, the
// subjects are switched, and only when all of that is applied comes what follows, and then the next delta.
type policyPlan struct {
	cluster string
	engine  *policy.Engine
	dirty   bool          // the engine was given something since its last step, or asks for another
	written bool          // something was emitted that is not known to be applied
	after   *policy.Delta // its second phase is still to be written
	forget  bool          // flows must forget what they know before what was emitted is written

	lines    map[uint32]uint32 // of each group that was emitted
	cidrs    map[netip.Prefix]uint32
	policies map[string]Policy // by record key
	said     []string          // problems that are no single policy's
}

func newPolicyPlan(cfg Config, m policy.Remembered) *policyPlan {
	p := &policyPlan{
		cluster: cfg.Cluster, dirty: true, policies: map[string]Policy{},
		lines: map[uint32]uint32{}, cidrs: map[netip.Prefix]uint32{},
		engine: policy.NewEngine(policy.Config{Cluster: cfg.Cluster, Limits: cfg.Limits, Remembered: m}),
	}
	for group, lines := range m.Groups {
		p.lines[group] = uint32(len(lines))
	}
	maps.Copy(p.cidrs, m.CIDRs)
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

func (p *policyPlan) setIdentity(before, now *record.Identity) {
	p.dirty = true
	if now != nil {
		p.engine.SetIdentity(now.ID, now.Labels)
		return
	}
	p.engine.SetIdentity(before.ID, nil)
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
	p.policies = maps.Clone(p.policies) // what planned gave is not changed
	if now == nil {
		delete(p.policies, key)
		p.engine.SetPolicy(p.policyKey(key), nil)
		return
	}
	p.policies[key] = Policy{Key: key, Revision: now.Provenance.Revision}
	p.engine.SetPolicy(now.Model.Key(), now.Model)
}

// recordPrefix is what a policy's key among records has before its key within the cluster.
func (p *policyPlan) recordPrefix() string { return p.cluster + "/" + record.KindPolicy + "/" }

func (p *policyPlan) policyKey(recordKey string) string { return recordKey[len(p.recordPrefix()):] }

// step gives what is to be written next, and the CIDRs that policies name if they changed. applied says that everything
// emitted so far is in force or was refused.
func (p *policyPlan) step(applied bool) (rows policyRows, cidrs map[netip.Prefix]uint32) {
	switch {
	case (p.written || p.after != nil) && !applied:
		return policyRows{}, nil
	case p.after != nil:
		rows.rows = &p.after.After
		p.dirty = p.dirty || p.after.Again
		p.after = nil
	case p.dirty:
		rows = p.next()
	}
	p.written = rows.size() > 0
	if rows.rows != nil {
		rows.gone = p.learnGroups(rows.rows.Groups)
		cidrs = p.learnCIDRs(rows.rows.CIDRs)
	}
	return rows, cidrs
}

func (p *policyPlan) next() (rows policyRows) {
	d := p.engine.Step()
	p.dirty = false
	p.forget = p.forget || d.Forget
	rows.subjects, rows.rules = d.Subjects, d.Rules
	if !d.Switch && !d.Forget && d.Before.Empty() && len(d.Subjects) == 0 {
		rows.rows = &d.After
		p.dirty = d.Again
	} else {
		rows.rows, p.after = &d.Before, d
	}
	p.collectProblems()
	return rows
}

// learnGroups keeps how many lines groups have, and gives that of those that go.
func (p *policyPlan) learnGroups(groups map[uint32][]policy.Line) (gone map[uint32]uint32) {
	gone = map[uint32]uint32{}
	for group, lines := range groups {
		if lines == nil {
			gone[group] = p.lines[group]
			delete(p.lines, group)
		} else {
			p.lines[group] = uint32(len(lines))
		}
	}
	return gone
}

// learnCIDRs keeps the CIDRs that policies name, and gives them all if any changed.
func (p *policyPlan) learnCIDRs(changed map[netip.Prefix]*uint32) map[netip.Prefix]uint32 {
	if len(changed) == 0 {
		return nil
	}
	p.cidrs = maps.Clone(p.cidrs)
	for prefix, id := range changed {
		if id == nil {
			delete(p.cidrs, prefix)
		} else {
			p.cidrs[prefix] = *id
		}
	}
	return p.cidrs
}

func (p *policyPlan) collectProblems() {
	p.said = nil
	found := map[string]string{}
	for _, problem := range p.engine.Problems() {
		if problem.PolicyKey == "" {
			p.said = append(p.said, problem.Message)
		} else if found[problem.PolicyKey] == "" {
			found[problem.PolicyKey] = problem.Message
		}
	}
	cloned := false
	for key, pol := range p.policies {
		message := found[p.policyKey(key)]
		if message == pol.Problem {
			continue
		}
		if !cloned {
			p.policies, cloned = maps.Clone(p.policies), true
		}
		pol.Problem = message
		p.policies[key] = pol
	}
}

// waiting says that something is to be emitted as soon as the last rows are applied.
func (p *policyPlan) waiting() bool { return p.after != nil || p.dirty }
