// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config says whose plan it is.
type Config struct {
	Cluster string
	Node    string
	OwnCNI  bool // the routes between this cluster's nodes are ours to set
	// SkipServices (namespace/name) are not translated but left to kube-proxy: the control plane's own. An agent that
	// lost the relay must not be led to where the relay was.
	SkipServices []string
}

// Memory is what the kernel still holds from an earlier run. It keeps numbers as they were.
type Memory struct {
	Addresses map[netip.Addr]bpf.Remote
	Ranges    map[netip.Prefix]bpf.Remote
	Frontends map[table.Frontend]bpf.Service
}

// Owners of desired rows.
const (
	ownerNetwork  = "network"
	ownerPolicies = "policies"
	ownerSettings = "settings"
)

// serviceOwner owns the rows of one service.
func serviceOwner(name string) string { return "service/" + name }

// Planner plans anew what changes of its sources touch.
type Planner struct {
	cfg    Config
	tables *table.Tables
	watch  *watch

	memory  Memory
	ids     *serviceIDs
	cidrs   map[netip.Prefix]uint32
	indexes map[string]uint16
	ranges  map[netip.Prefix]topology.IPCacheEntry

	// The large parts.
	addresses *table.Replacer[netip.Addr, bpf.Remote]
	rules     *table.Replacer[uint32, table.Rule]
	entries   *table.Replacer[bpf.PolicyKey, bpf.PolicyEntry]
	subjects  *table.Replacer[bpf.SubjectKey, bpf.Subject]

	planned  map[string]Policy
	problems problems
	stats    Stats
}

// Policy is a policy as it was last planned.
type Policy struct {
	Key      string // of its record
	Revision string // where it came from
	Problem  string // what its author should know; empty if nothing
}

// Stats counts how often each part was planned.
type Stats struct {
	Network, Policies, Services int
}

// New makes a planner. Its first step plans everything.
func New(cfg Config, t *table.Tables, m Memory) (*Planner, error) {
	w, err := newWatch(t, cfg)
	if err != nil {
		return nil, err
	}
	p := &Planner{
		cfg: cfg, tables: t, watch: w, memory: m,
		ids:   newServiceIDs(m.Frontends),
		cidrs: rememberedCIDRs(m.Ranges),

		addresses: table.NewReplacer(t.Addresses, ownerNetwork),
		rules:     table.NewReplacer(t.Rules, ownerPolicies),
		entries:   table.NewReplacer(t.Entries, ownerPolicies),
		subjects:  table.NewReplacer(t.Subjects, ownerPolicies),
	}
	p.watch.dirty.network, p.watch.dirty.policies = true, true
	return p, nil
}

// Step plans what changed since the last one, and writes the desired rows in one transaction.
func (p *Planner) Step() (changed bool, err error) {
	txn := p.tables.DB.ReadTxn()
	dirty := p.watch.collect(txn)
	if dirty.none() {
		return false, nil
	}
	w := p.tables.WritePlan()
	defer w.Abort()
	if dirty.network {
		err = p.network(txn, w)
	}
	if err == nil && dirty.policies {
		err = p.policies(txn, w)
	}
	if err == nil && (dirty.network || dirty.policies) {
		err = p.tables.Ranges.Set(w, ownerNetwork, planRanges(p.ranges, p.cidrs))
	}
	for name := range dirty.services {
		if err == nil {
			err = p.service(txn, w, name)
		}
	}
	if err != nil {
		return false, fmt.Errorf("setting desired rows: %w", err)
	}
	w.Commit()
	p.watch.clean()
	return true, nil
}

// Sources closes when there is something to plan.
func (p *Planner) Sources() []<-chan struct{} { return p.watch.channels }

// Policies as they were last planned, by record key. The map is not changed afterwards.
func (p *Planner) Policies() map[string]Policy { return p.planned }

// Problems tells what could not be planned as wanted.
func (p *Planner) Problems() []string { return p.problems.list() }

// Stats of this planner.
func (p *Planner) Stats() Stats { return p.stats }

func (p *Planner) network(txn statedb.ReadTxn, w statedb.WriteTxn) error {
	p.stats.Network++
	in := p.networkInput(txn)
	n := planNetwork(in)
	p.indexes, p.ranges, p.problems.network = n.indexes, n.ranges, n.problems
	t := p.tables
	if err := t.Peers.Set(w, ownerNetwork, n.peers); err != nil {
		return err
	}
	if err := p.addresses.Set(w, n.addresses); err != nil {
		return err
	}
	if err := t.Routes.Set(w, ownerNetwork, n.routes); err != nil {
		return err
	}
	if err := t.Pods.Set(w, ownerNetwork, n.pods); err != nil {
		return err
	}
	return t.Settings.Set(w, ownerSettings, map[string]table.Setting{"config": n.setting})
}

func (p *Planner) policies(txn statedb.ReadTxn, w statedb.WriteTxn) error {
	p.stats.Policies++
	in, planned := p.policyInput(txn)
	r := planPolicies(in)
	p.cidrs = r.cidrs
	for _, problem := range r.problems {
		key := recordKey(p.cfg.Cluster, problem.PolicyKey)
		if pol, ok := planned[key]; ok {
			pol.Problem = problem.Message
			planned[key] = pol
		}
	}
	p.planned = planned
	if err := p.rules.Set(w, r.rules); err != nil {
		return err
	}
	if err := p.entries.Set(w, r.entries); err != nil {
		return err
	}
	return p.subjects.Set(w, r.subjects)
}

func (p *Planner) service(txn statedb.ReadTxn, w statedb.WriteTxn, name string) error {
	p.stats.Services++
	t, owner := p.tables, serviceOwner(name)
	var former []table.Frontend
	for row := range t.Frontends.Owned(txn, owner) {
		former = append(former, row.Key)
	}
	var defs []service.Definition
	if !slices.Contains(p.cfg.SkipServices, name) {
		defs = p.definitions(txn, name)
	}
	r := planService(p.cfg.Cluster, defs, p.ids.of, func(k bpf.SlotKey) (bpf.Backend, bool) {
		row, ok := t.Slots.Get(w, k)
		if !ok {
			return bpf.Backend{}, false
		}
		return row.Value, true
	})
	p.problems.service(name, r.problems)
	if err := t.Slots.Set(w, owner, r.slots); err != nil {
		return err
	}
	if err := t.Frontends.Set(w, owner, r.frontends); err != nil {
		return err
	}
	for _, f := range former {
		if _, still := r.frontends[f]; !still {
			p.ids.forget(f)
		}
	}
	return nil
}
