// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// clusterStates says what agents may conclude from records that they don't have; see relay.proto.
func (i *Intake) clusterStates() []*relayv1.ClusterState {
	if i.own == "" {
		return nil
	}
	// The first Changed under a membership brings all of this cluster's records.
	states := []*relayv1.ClusterState{{Name: i.own, Local: true, Synced: true, SyncedKinds: record.Kinds()}}
	for _, name := range slices.Sorted(maps.Keys(i.decisions)) {
		if name == i.own {
			continue // a MeshCluster of our own name is refused, and says nothing of us
		}
		st := &relayv1.ClusterState{Name: name, Stale: true}
		if r := i.remotes[name]; r != nil && i.decisions[name].Claim != nil {
			st.Stale = r.state.Stale
			st.SyncedKinds = r.syncedKinds()
			st.Synced = len(st.SyncedKinds) == len(record.Kinds())
		}
		states = append(states, st)
	}
	return states
}

// syncedKinds gives the kinds of which the hub holds all that was taken, of all that the store held.
func (r *remote) syncedKinds() []string {
	if !r.complete {
		return nil
	}
	return slices.DeleteFunc(record.Kinds(), func(kind string) bool { return slices.Contains(r.backlog, kind) })
}
