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
	// forget makes the watcher give up a cluster, because its MeshCluster was deleted.
	forget func(cluster string)

	deciding sync.Mutex // held by SetDecisions, which gives mu up now and then

	mu        sync.Mutex
	mesh      *v1alpha1.ClusterMeshSpec
	own       string
	ownClaim  *record.Claim
	impostor  string
	decisions map[string]Decision
	remotes   map[string]*remote
	ownState  store.ClusterState
	shared    *shared
	notify    []func()
	slice     int // how many records are judged at a time
	// statesChanged: what the hub says of clusters is to be made anew. That costs as much as there are clusters.
	statesChanged bool
}

// NewIntake makes an Intake that feeds a hub.
func NewIntake(hub Hub, log *slog.Logger) *Intake {
	return &Intake{
		hub: hub, log: log, forget: func(string) {},
		decisions: map[string]Decision{}, remotes: map[string]*remote{},
		shared: &shared{keys: newNodeKeys(), addresses: newNodeAddresses()}, slice: sliceSize,
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
	i.deliver(changes)
}

func (i *Intake) setOwn(mesh *v1alpha1.ClusterMeshSpec) {
	if i.mesh == mesh {
		return
	}
	i.mesh, i.own, i.ownClaim, i.statesChanged = mesh, "", nil, true
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
		i.shared.keys.release(c.Key)
		return nil
	}
	loser := i.shared.keys.seize(c.Key, c.Record)
	r := i.remotes[record.ClusterOf(loser)]
	if loser == "" || r == nil {
		return nil
	}
	i.log.Warn("another cluster's node announced the WireGuard key of a node of this cluster; it is withdrawn", "record", loser, "node", c.Key)
	h := r.kinds[record.KindNode][loser]
	if h == nil || h.good == nil {
		return nil
	}
	r.refuse(loser, h, duplicateKey(c.Key))
	return []*relayv1.Change{r.withdraw(loser, h)}
}

// Records implements store.Handler.
func (i *Intake) Records(cluster string, events []store.Event) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	inSlices(i, events, func(ev store.Event) int { return len(ev.Value) }, func(ev store.Event) *relayv1.Change {
		if cluster == i.own {
			i.ownRecord(ev)
			return nil
		}
		return i.take(cluster, ev)
	})
}

func (i *Intake) take(cluster string, ev store.Event) *relayv1.Change {
	r, claim := i.remote(cluster), i.judging(cluster)
	r.store(ev)
	if claim == nil || r.later(record.Kind(ev.Key)) {
		return nil
	}
	change, refused := r.judge(ev.Key, claim)
	i.note(r, refused)
	return change
}

func (i *Intake) remote(cluster string) *remote {
	r := i.remotes[cluster]
	if r == nil {
		r = newRemote(cluster, i.shared)
		i.remotes[cluster] = r
	}
	return r
}

// ownRecord looks only for somebody else who writes in this cluster's name.
func (i *Intake) ownRecord(ev store.Event) {
	if record.Kind(ev.Key) != record.KindCluster || i.ownClaim == nil {
		return
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

// Cluster implements store.Handler.
func (i *Intake) Cluster(cluster string, state store.ClusterState) {
	i.mu.Lock()
	defer i.changed()
	defer i.mu.Unlock()
	if cluster == i.own {
		i.ownState = state
		return
	}
	r, claim := i.remote(cluster), i.judging(cluster)
	if r.state.Stale != state.Stale {
		r.beats.Do(func() { i.log.Info("cluster's heartbeat", "cluster", cluster, "stale", state.Stale, "why", state.Why) })
	}
	i.statesChanged = i.statesChanged || r.state.Stale != state.Stale || r.state.Synced != state.Synced
	r.state = state
	if claim != nil {
		r.complete = state.Synced
		i.retryWaiting(cluster)
	}
	i.deliver(nil)
}

// retryWaiting judges again what was refused because another node had its key, where that one is gone. It is called at each
// heartbeat, and a hostile cluster may have any number waiting: those whose key is still held cost a look.
func (i *Intake) retryWaiting(cluster string) {
	inSlices(i, i.remotes[cluster].free(), i.sizeOf, func(key string) *relayv1.Change {
		r, claim := i.remotes[cluster], i.judging(cluster)
		if r == nil || claim == nil {
			return nil
		}
		change, _ := r.judge(key, claim)
		return change
	})
}

// deliver hands changes and the clusters' states to the agents, in this order: a cluster is called synced only after
// its records are there.
func (i *Intake) deliver(changes []*relayv1.Change) {
	if len(changes) > 0 {
		if err := i.hub.Apply(changes); err != nil {
			i.log.Error("hand records to the agents", "error", err)
		}
	}
	if i.statesChanged {
		i.statesChanged = false
		i.hub.SetClusters(i.clusterStates())
	}
}

// note counts and logs a refusal that was not known before, if there is one.
func (i *Intake) note(r *remote, refused *refusal) {
	if refused == nil {
		return
	}
	rejectedTotal.WithLabelValues(r.name, string(refused.reason)).Inc()
	r.logged.Do(func() {
		i.log.Warn("record refused", "cluster", r.name, "key", refused.key, "why", refused.message)
	})
}
