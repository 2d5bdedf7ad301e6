// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/operator/condition"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

// heartbeatShown is how old the shown heartbeat may get before that alone is worth a write.
const heartbeatShown = time.Minute

// setClusterStatus says how the exchange with another cluster goes.
func setClusterStatus(mc *v1alpha1.MeshCluster, f *Facts) {
	r := f.Federated.Remotes[mc.Name]
	set := condition.Setter{Conditions: &mc.Status.Conditions, Generation: mc.Generation}
	st := &mc.Status
	st.ObservedGeneration = mc.Generation
	st.Records = nonZero(r.Records)
	st.RejectedRecords = int32(r.Rejected)
	st.Rejections = nil
	for _, rej := range r.Rejections {
		st.Rejections = append(st.Rejections, v1alpha1.Rejection{Key: rej.Key, Reason: rej.Message})
	}
	st.Nodes = r.Records[record.KindNode]
	st.Tunnels = f.Tunnels[mc.Name]
	if hb := r.State.Heartbeat; !hb.IsZero() && (st.LastHeartbeatTime == nil || hb.Sub(st.LastHeartbeatTime.Time) >= heartbeatShown) {
		at := metav1.NewTime(hb.Truncate(time.Second))
		st.LastHeartbeatTime = &at
	}

	setAccepted(set, r)
	setConnected(set, r, f)
	setSynced(set, mc, r)
	setTunnels(set, mc)
	summarize(set, clusterProblem(mc, r), "%s", clusterSummary(mc))
}

func clusterSummary(mc *v1alpha1.MeshCluster) string {
	s := fmt.Sprintf("%d nodes, %d endpoints, %d of %d tunnels up", mc.Status.Nodes, mc.Status.Records[record.KindEndpoint], mc.Status.Tunnels.Ready, mc.Status.Tunnels.Total)
	if n := mc.Status.RejectedRecords; n > 0 {
		s += fmt.Sprintf("; %d records refused", n)
	}
	return s
}

func setAccepted(set condition.Setter, r federate.RemoteOverview) {
	switch {
	case r.Decision == nil:
		set.Unknown(v1alpha1.ConditionAccepted, "Pending", "not judged yet")
	case r.Decision.Refused != nil:
		set.False(v1alpha1.ConditionAccepted, "ClaimConflict", "%v; nothing new is taken from this cluster", r.Decision.Refused)
	default:
		set.True(v1alpha1.ConditionAccepted, "Accepted", "records within clusterID %d and its podCIDRs are taken", r.Decision.Claim.ID)
	}
}

func setConnected(set condition.Setter, r federate.RemoteOverview, f *Facts) {
	typ := v1alpha1.ConditionControlPlaneConnected
	switch {
	case f.Store.Err != nil || (f.Store.Watch.LastError != nil && !f.Store.Watch.Reachable):
		set.Unknown(typ, "StoreUnreachable", "this cluster has no connection to the shared etcd")
	case r.State.Heartbeat.IsZero() && !r.State.Synced:
		set.False(typ, "NeverSeen", "nothing was heard from this cluster yet")
	case r.State.Stale:
		set.False(typ, "Stale", "%s; its records are kept", orDefault(r.State.Why, "no heartbeat"))
	default:
		set.True(typ, "Connected", "heartbeats arrive")
	}
}

func setSynced(set condition.Setter, mc *v1alpha1.MeshCluster, r federate.RemoteOverview) {
	typ := v1alpha1.ConditionSynced
	switch {
	case mc.Spec.Suspend:
		set.False(typ, "Suspended", "frozen by spec.suspend")
	case !r.State.Synced:
		set.False(typ, "Syncing", "its records are not complete yet")
	default:
		if mc.Status.LastSyncedRevision == 0 {
			mc.Status.LastSyncedRevision = r.State.Revision
		}
		if len(r.Rejections) > 0 {
			set.True(typ, "SyncedWithRefusals", "complete but for refused records, the newest: %s: %s", r.Rejections[0].Key, r.Rejections[0].Message)
			return
		}
		set.True(typ, "Synced", "its records are complete")
	}
}

func setTunnels(set condition.Setter, mc *v1alpha1.MeshCluster) {
	typ, t := v1alpha1.ConditionTunnelHealthy, mc.Status.Tunnels
	switch {
	case t.Total == 0:
		set.Unknown(typ, "NoTunnels", "no tunnel is wanted yet: one side has no node with a key")
	case t.Ready < t.Total:
		set.False(typ, "TunnelsDown", "%d of %d tunnels are up", t.Ready, t.Total)
	default:
		set.True(typ, "TunnelsUp", "all %d tunnels are up", t.Total)
	}
}

func clusterProblem(mc *v1alpha1.MeshCluster, r federate.RemoteOverview) *problem {
	if mc.Spec.Suspend {
		return &problem{"Suspended", "frozen by spec.suspend", true}
	}
	for _, typ := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionControlPlaneConnected, v1alpha1.ConditionSynced, v1alpha1.ConditionTunnelHealthy} {
		for _, c := range mc.Status.Conditions {
			if c.Type == typ && c.Status != metav1.ConditionTrue {
				return &problem{c.Reason, c.Message, typ == v1alpha1.ConditionAccepted && r.Decision != nil}
			}
		}
	}
	return nil
}

func nonZero(counts map[string]int32) map[string]int32 {
	out := map[string]int32{}
	for k, v := range counts {
		if v != 0 {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
