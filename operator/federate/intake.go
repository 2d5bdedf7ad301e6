// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package federate exchanges records with the other clusters through the shared etcd and feeds the relay.
//
//	export.Delta ──► Intake ───────────────────────────────► relay hub ──► agents
//	           └──► Connection ──► store.Publisher (leader)     ▲
//	                store.Watcher ──► Intake: validate, quarantine ┘
//	                                    └── announced clusters ──► Discoverer (leader) ──► MeshCluster objects
//
// What other clusters say is never taken on trust: a MeshCluster object says what a cluster may claim, and every record
// is held against that. A record that fails is left out and reported; the value before it stays.
package federate

import (
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// Hub is where the agents' streams come from.
type Hub interface {
	Apply([]*relayv1.Change) error
	SetClusters([]*relayv1.ClusterState)
}

// Intake merges this cluster's records and the others' into the hub.
type Intake struct {
	hub Hub
	log *slog.Logger
	// forget tells the watcher to give up a cluster whose MeshCluster was deleted.
	forget func(cluster string)

	mu        sync.Mutex
	own       string
	ownClaim  *record.Claim
	localDone bool
	impostor  string
	decisions map[string]Decision
	remotes   map[string]*remote
	ownState  store.ClusterState
	keys      *nodeKeys
	notify    []func()
}

// NewIntake makes an Intake that feeds a hub.
func NewIntake(hub Hub, log *slog.Logger) *Intake {
	return &Intake{
		hub: hub, log: log, forget: func(string) {},
		decisions: map[string]Decision{}, remotes: map[string]*remote{}, keys: newNodeKeys(),
	}
}

// OnChange adds a function that is called, without arguments and from any goroutine, when Overview may have changed. It
// must return at once. Add all before the Intake is used.
func (i *Intake) OnChange(f func()) { i.notify = append(i.notify, f) }

func (i *Intake) changed() {
	for _, f := range i.notify {
		f()
	}
}

// Changed takes this cluster's own records.
func (i *Intake) Changed(mesh *v1alpha1.ClusterMeshSpec, d export.Delta) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	i.setOwn(mesh)
	changes := make([]*relayv1.Change, 0, len(d.Local))
	for _, c := range d.Local {
		changes = append(changes, &relayv1.Change{Key: c.Key, Record: c.Record})
		if record.Kind(c.Key) == record.KindNode {
			changes = append(changes, i.localNode(c)...)
		}
	}
	i.localDone = mesh != nil
	i.deliver(changes)
}

func (i *Intake) setOwn(mesh *v1alpha1.ClusterMeshSpec) {
	i.own, i.ownClaim = "", nil
	if mesh == nil {
		return
	}
	i.own = mesh.ClusterName
	if c, err := ownClaim(mesh); err == nil {
		i.ownClaim = &c
	}
}

func (i *Intake) localNode(c export.Change) []*relayv1.Change {
	if c.Record == nil {
		i.keys.release(c.Key)
		return nil
	}
	loser := i.keys.seize(c.Key, c.Record)
	r := i.remotes[record.ClusterOf(loser)]
	if loser == "" || r == nil {
		return nil
	}
	i.log.Warn("another cluster's node announced the WireGuard key of a node of this cluster; it is withdrawn", "record", loser, "node", c.Key)
	if change := r.withdraw(loser, i.keys); change != nil {
		r.reject(loser, &record.Error{Reason: record.ReasonDuplicate, Field: "node.wireguard_public_key", Detail: "is already the key of " + c.Key})
		return []*relayv1.Change{change}
	}
	return nil
}

// Records implements store.Handler.
func (i *Intake) Records(cluster string, events []store.Event) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	if cluster == i.own {
		i.ownRecords(events)
		return
	}
	r := i.remotes[cluster]
	if r == nil {
		r = newRemote(cluster)
		i.remotes[cluster] = r
	}
	d, decided := i.decisions[cluster]
	var changes []*relayv1.Change
	for _, ev := range events {
		r.store(ev)
		if !decided || d.Claim == nil || d.Frozen {
			continue
		}
		change, refused := r.judge(ev.Key, *d.Claim, i.keys)
		if change != nil {
			changes = append(changes, change)
		}
		i.tell(cluster, refused)
	}
	i.deliver(changes)
}

// ownRecords looks only for somebody else who writes in this cluster's name.
func (i *Intake) ownRecords(events []store.Event) {
	for _, ev := range events {
		if record.Kind(ev.Key) != record.KindCluster || i.ownClaim == nil {
			continue
		}
		was := i.impostor
		i.impostor = ""
		rec, err := record.Unmarshal(ev.Value)
		if ev.Value != nil && err == nil {
			i.impostor = foreignClaim(rec.GetClusterInfo(), *i.ownClaim)
		}
		if i.impostor != "" && i.impostor != was {
			i.log.Error("somebody else writes to the shared etcd in this cluster's name", "why", i.impostor)
		}
	}
}

// Cluster implements store.Handler.
func (i *Intake) Cluster(cluster string, state store.ClusterState) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	if cluster == i.own {
		i.ownState = state
		return
	}
	r := i.remotes[cluster]
	if r == nil {
		r = newRemote(cluster)
		i.remotes[cluster] = r
	}
	if r.state.Stale != state.Stale {
		i.log.Info("cluster's heartbeat", "cluster", cluster, "stale", state.Stale, "why", state.Why)
	}
	r.state = state
	var changes []*relayv1.Change
	if d := i.decisions[cluster]; d.Claim != nil && !d.Frozen {
		changes = r.retryDuplicates(*d.Claim, i.keys)
	}
	i.deliver(changes)
}

// SetDecisions takes what the MeshCluster objects say now, and judges anew what they changed.
func (i *Intake) SetDecisions(decisions map[string]Decision) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	was := i.decisions
	i.decisions = decisions
	var changes []*relayv1.Change
	for _, name := range slices.Sorted(maps.Keys(decisions)) {
		d, r := decisions[name], i.remotes[name]
		if r == nil || d.Claim == nil || d.Frozen || sameDecision(was[name], d) {
			continue
		}
		cs, fresh := r.judgeAll(*d.Claim, i.keys)
		changes = append(changes, cs...)
		for _, f := range fresh {
			i.tell(name, f)
		}
	}
	var gone []string
	for name := range was {
		if _, still := decisions[name]; still {
			continue
		}
		gone = append(gone, name)
		if r := i.remotes[name]; r != nil {
			for _, key := range r.sortedKeys() {
				if c := r.withdraw(key, i.keys); c != nil {
					changes = append(changes, c)
				}
			}
			delete(i.remotes, name)
		}
	}
	i.deliver(changes)
	for _, name := range gone {
		i.log.Info("MeshCluster deleted: the cluster is forgotten, and comes back as new if it is alive", "cluster", name)
		i.forget(name)
	}
}

// deliver hands changes and the clusters' states to the agents, in this order: a cluster is called synced only after
// its records are there.
func (i *Intake) deliver(changes []*relayv1.Change) {
	if len(changes) > 0 {
		if err := i.hub.Apply(changes); err != nil {
			i.log.Error("hand records to the agents", "err", err)
		}
	}
	i.hub.SetClusters(i.clusterStates())
}

func (i *Intake) clusterStates() []*relayv1.ClusterState {
	var states []*relayv1.ClusterState
	if i.own != "" {
		states = append(states, &relayv1.ClusterState{Name: i.own, Synced: i.localDone})
	}
	for _, name := range slices.Sorted(maps.Keys(i.decisions)) {
		st := &relayv1.ClusterState{Name: name, Stale: true}
		if r := i.remotes[name]; r != nil && i.decisions[name].Claim != nil {
			st.Synced, st.Stale = r.state.Synced, r.state.Stale
		}
		states = append(states, st)
	}
	return states
}

func (i *Intake) tell(cluster string, refused *rejection) {
	if refused == nil {
		return
	}
	rejectedTotal.WithLabelValues(cluster, string(refused.reason)).Inc()
	i.remotes[cluster].speak.Do(func() {
		i.log.Warn("record refused", "cluster", cluster, "key", refused.key, "why", refused.message)
	})
}
