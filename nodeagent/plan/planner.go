// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
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

	topology *topology.Planner
	services *service.Planner
	policy   *policyPlan
	pods     *podFacts
	nodes    map[netip.Addr]uint16 // remembered; nil once the peers have their indexes

	problems []string
	stale    bool // problems are to be collected anew
	stats    Stats
}

// Policy is a policy as it was last planned.
type Policy struct {
	Key      string // of its record
	Revision string // where it came from
	Problem  string // what its author should know; empty if nothing
}

// Stats counts the keys that steps emitted, of each part.
type Stats struct {
	Network, Policies, Services int
}

// New makes a planner. Its first step plans everything that the tables hold.
func New(cfg Config, t *table.Tables, m *Memory) *Planner {
	p := &Planner{
		cfg: cfg, out: t.ForPlan(), tables: t, records: t.FollowRecords(), nodes: m.nodes, stale: true,
		services: service.NewPlanner(service.Config{
			Cluster: cfg.Cluster, IDs: m.frontends, Slots: m.slots,
			Skip: func(namespace, name string) bool { return slices.Contains(cfg.SkipServices, namespace+"/"+name) },
		}),
		policy: newPolicyPlan(cfg, m.remembered()),
	}
	p.pods = newPodFacts(p.policy, m.policy.Subjects)
	p.visit()
	return p
}

// Step plans what changed since the last one. applied says that everything planned so far is in force in the kernel, or
// refused: what waits for that is planned then. complete says that the records of this node's pods are all there. It
// reports whether anything changed.
func (p *Planner) Step(applied, complete bool) (changed bool) {
	if p.topology == nil {
		p.begin()
	}
	p.records.Next()
	if complete {
		p.pods.forgetRemembered()
	}
	policies, cidrs := p.policy.step(applied)
	if cidrs != nil {
		p.topology.SetPolicyCIDRs(cidrs)
	}
	network, services := p.topology.Step(), p.services.Step()
	p.stats.Policies += policies.size()
	p.stats.Network += len(network.Addresses) + len(network.CIDRs) + len(network.Encrypted) + len(network.Peers) + len(network.Routes)
	p.stats.Services += len(services.Frontends) + len(services.Slots)
	setting := p.setting()
	p.tables.Write(func(txn *table.Txn) {
		policies.write(txn, &p.out)
		p.writeNetwork(txn, network)
		p.writeServices(txn, services)
		if had, ok := p.out.Settings.Get(txn, "config"); !ok || had != setting {
			p.out.Settings.Put(txn, "config", setting)
			changed = true
		}
	})
	changed = changed || policies.size() > 0 || !network.Empty() || len(services.Frontends)+len(services.Slots) > 0
	p.stale = p.stale || changed
	return changed
}

// begin makes the network's part, which must know the peers' indexes from the start. A node's record tells which of the
// remembered addresses are its own.
func (p *Planner) begin() {
	indexes := map[string]uint16{}
	if len(p.nodes) > 0 {
		for key, n := range p.tables.Nodes.All() {
			for _, addr := range n.Addresses {
				if index := p.nodes[addr]; index != 0 {
					indexes[topology.PeerKey(clusterOf(key), n.Name)] = index
					break
				}
			}
		}
	}
	p.nodes = nil
	p.topology = topology.NewPlanner(topology.Config{Self: p.cfg.Node, Cluster: p.cfg.Cluster, OwnCNI: p.cfg.OwnCNI, Indexes: indexes})
}

// Watch closes when there is something to plan.
func (p *Planner) Watch() <-chan struct{} { return p.records.Watch() }

// Waiting says that a part of the policy is to be planned once what was planned is applied.
func (p *Planner) Waiting() bool { return p.policy.waiting() }

// Forget says that flows must forget what they know of classes, groups and sets before what was planned is written.
// Forgotten says that they have.
func (p *Planner) Forget() bool { return p.policy.forget }

// Forgotten answers Forget.
func (p *Planner) Forgotten() { p.policy.forget = false }

// Policies as they were last planned, by record key. The map is not changed afterwards.
func (p *Planner) Policies() map[string]Policy { return p.policy.policies }

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
