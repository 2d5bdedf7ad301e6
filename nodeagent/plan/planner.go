// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/service"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config says which node is planned for.
type Config struct {
	Cluster string
	Node    string
	OwnCNI  bool // the routes between this cluster's nodes are ours to set
	// SkipServices (namespace/name) are not translated but left to kube-proxy: the control plane's own. An agent that
	// lost the relay must not be led to where the relay was.
	SkipServices []string
	// Limits are the sizes of the maps that policy lies in.
	Limits policy.Limits
}

// Planner keeps the desired rows in line with the records. A change costs what it touches: each part keeps its plan and
// emits what changed.
type Planner struct {
	cfg     Config
	out     table.PlanWriters
	tables  *table.Tables
	records *table.Follower

	topology  *topology.Planner
	services  *service.Planner
	policy    *policyPlan
	pods      *podFacts
	hostPorts hostPorts
	memory    *Memory // nil once the network is planned with it

	rules    map[uint32]*policy.Rule // that change or go once the change at hand is in force
	problems []string
	stale    bool // problems are to be collected anew
	stats    Stats
}

// Policy is a policy as it was last planned.
type Policy struct {
	Key      string // of its record
	Revision string // where it came from
	Content  string // which state of the object it is, see record.Policy
	Problem  string // why it is not in force as it is written; empty if it is
	Warning  string // what else its author should know
}

// Stats counts the keys that steps emitted, of each part.
type Stats struct {
	Network, Policies, Services int
}

// New makes a planner. Its first step plans everything that the tables hold.
func New(cfg Config, t *table.Tables, m *Memory) *Planner {
	p := &Planner{
		cfg: cfg, out: t.ForPlan(), tables: t, records: t.FollowRecords(), memory: m, stale: true, rules: map[uint32]*policy.Rule{},
		services: service.NewPlanner(service.Config{
			Cluster: cfg.Cluster, IDs: m.frontends, ProxiedIDs: m.proxied, Slots: m.slots,
			Proxied: func(namespace, name string) bool { return slices.Contains(cfg.SkipServices, namespace+"/"+name) },
		}),
	}
	p.policy = newPolicyPlan(cfg, m.Policy, p.services)
	p.pods = newPodFacts(p.policy, m.Policy.Subjects)
	p.hostPorts = hostPorts{cfg.Cluster, p.services}
	p.visit()
	return p
}

// Step plans what changed since the last one and writes the desired rows, but for those of policy: these come as a change
// that must be brought into force as a whole, see policy.Delta. It is nil if there is none, or if ready is not set: the
// change before must be in force first. complete says that the records of this node's pods are all there.
func (p *Planner) Step(ready, complete bool) *policy.Delta {
	if p.topology == nil {
		p.begin()
	}
	p.records.Next()
	if complete {
		p.pods.forgetRemembered()
	}
	var d *policy.Delta
	var rules map[uint32]*policy.Rule
	if ready {
		rules = p.rules // what was planned before is in force now
		p.rules = map[uint32]*policy.Rule{}
		d = p.policy.step()
	}
	network, services := p.topology.Step(), p.services.Step()
	p.stats.Network += len(network.Addresses) + len(network.CIDRs) + len(network.Encrypted) + len(network.Peers) + len(network.Routes)
	p.stats.Services += len(services.Frontends) + len(services.Slots)
	setting := p.setting()
	p.tables.Write(func(txn *table.Txn) {
		p.writeRules(txn, rules)
		if d != nil {
			p.holdRules(txn, d.Rules)
		}
		p.writeNetwork(txn, network)
		p.writeServices(txn, services)
		p.out.Settings.Put(txn, "config", setting)
	})
	p.stale = p.stale || d != nil || !network.Empty() || len(services.Frontends)+len(services.Slots) > 0
	return d
}

// holdRules writes the rules that are new. What a rule in force says changes only when the change is in force: events name
// rules by this table.
func (p *Planner) holdRules(txn *table.Txn, rules map[uint32]*policy.Rule) {
	fresh := map[uint32]*policy.Rule{}
	for id, rule := range rules {
		if _, inForce := p.out.Rules.Get(txn, id); inForce || rule == nil {
			p.rules[id] = rule
		} else {
			fresh[id] = rule
		}
	}
	p.writeRules(txn, fresh)
}

func (p *Planner) writeRules(txn *table.Txn, rules map[uint32]*policy.Rule) {
	p.stats.Policies += len(rules)
	for id, rule := range rules {
		if rule == nil {
			p.out.Rules.Delete(txn, id)
		} else {
			p.out.Rules.Put(txn, id, describe(rule))
		}
	}
}

// begin makes the network's part, which must know the peers' indexes from the start. A node's record tells which of the
// remembered addresses are its own. Indexes of nodes that have no record, as those of a cluster that is dark, are kept until
// ReleaseIndexes.
func (p *Planner) begin() {
	indexes := map[string]uint16{}
	if len(p.memory.nodes) > 0 {
		for key, n := range p.tables.Nodes.All() {
			for _, addr := range n.Addresses {
				if index := p.memory.nodes[addr]; index != 0 {
					indexes[topology.PeerKey(clusterOf(key), n.Name)] = index
					delete(p.memory.peers, index)
					break
				}
			}
		}
	}
	for index := range p.memory.peers {
		indexes[topology.UnknownPeerKey(index)] = index
	}
	p.topology = topology.NewPlanner(topology.Config{
		Self: p.cfg.Node, Cluster: p.cfg.Cluster, OwnCNI: p.cfg.OwnCNI, Indexes: indexes, Keyed: p.keyed(),
	})
	p.memory = nil
}

// ReleaseIndexes lets indexes of peers that only the kernel knew be given away: no row bears them any more.
func (p *Planner) ReleaseIndexes() { p.topology.ReleaseIndexes() }

// keyed are the nodes of the cluster whose pods were reached through the tunnel: they had a key, whatever their records say
// now.
func (p *Planner) keyed() map[string]bool {
	out := map[string]bool{}
	if len(p.memory.tunnelled) == 0 {
		return out
	}
	for key, e := range p.tables.Endpoints.All() {
		for _, addr := range e.Addresses {
			if _, was := p.memory.tunnelled[addr]; was && clusterOf(key) == p.cfg.Cluster {
				out[e.Node] = true
			}
		}
	}
	return out
}

// Watch closes when there is something to plan.
func (p *Planner) Watch() <-chan struct{} { return p.records.Watch() }

// Waiting says that policy is to be planned once Step is told that it may.
func (p *Planner) Waiting() bool { return p.policy.dirty || len(p.rules) > 0 }

// Policies as they were last planned, by record key. The map is not changed afterwards.
func (p *Planner) Policies() map[string]Policy { return p.policy.share() }

// Problems lists what could not be planned as wanted.
func (p *Planner) Problems() []string {
	if p.stale {
		p.problems = slices.Concat(p.topology.Problems(), p.services.Problems(), p.policy.said)
		p.stale = false
	}
	return p.problems
}

// Stats of this planner.
func (p *Planner) Stats() Stats { return p.stats }

func (p *Planner) setting() table.Setting {
	e := p.topology.Encryption()
	return table.Setting{Encryption: e.On, Strict: e.Strict}
}

func (p *Planner) writeNetwork(txn *table.Txn, d topology.Delta) {
	for _, c := range d.Peers {
		if c.New == nil {
			p.out.Peers.Delete(txn, c.Index)
		} else {
			p.out.Peers.Put(txn, c.Index, c.New)
		}
	}
	put(txn, p.out.Addresses, d.Addresses, remote)
	put(txn, p.out.Ranges, d.CIDRs, remote)
	put(txn, p.out.Guards, d.Encrypted, func(struct{}) uint32 { return 1 })
	put(txn, p.out.Routes, d.Routes, func(r topology.Route) table.Route {
		return table.Route{Via: string(r.Via), Gateway: r.Gateway, Source: r.Src}
	})
}

func put[K, V, R comparable](txn *table.Txn, to table.Writer[K, R], changes []topology.Change[K, V], row func(V) R) {
	for _, c := range changes {
		if c.Gone {
			to.Delete(txn, c.Key)
		} else {
			to.Put(txn, c.Key, row(c.Value))
		}
	}
}

func remote(e topology.IPCacheEntry) bpf.Remote {
	return bpf.Remote{Identity: e.Identity, Peer: e.Peer, Flags: uint8(e.Flags)}
}
