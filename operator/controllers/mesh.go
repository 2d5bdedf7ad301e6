// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/condition"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// quiet is how long an agent may be silent; it reports every minute.
const quiet = 3 * time.Minute

// shown is how many names a message lists.
const shown = 5

// setMeshStatus says how this cluster's membership goes. ready is how many other clusters are.
func setMeshStatus(m *v1alpha1.ClusterMesh, f *Facts, ready int) {
	set := condition.Setter{Conditions: &m.Status.Conditions, Generation: m.Generation}
	m.Status.ObservedGeneration = m.Generation
	m.Status.OperatorVersion = f.Version
	m.Status.Nodes = agentCounts(f)
	m.Status.TotalClusters = int32(1 + len(f.Clusters))

	setStoreReachable(set, m, f)
	setEncryption(set, m, f)
	setPolicyMode(set, m)
	setMembers(set, f)
	summarize(set, meshProblem(m, f), "in mesh %s with %d other clusters, %d of %d nodes ready", m.Spec.MeshID, len(f.Clusters), m.Status.Nodes.Ready, m.Status.Nodes.Total)

	m.Status.ReadyClusters = int32(ready)
	if condition.IsTrue(m.Status.Conditions, condition.Ready) {
		m.Status.ReadyClusters++
	}
}

// problem is the first thing that keeps an object from being ready.
type problem struct {
	reason, message string
	// stalled: waiting doesn't help, somebody has to change something.
	stalled bool
}

// summarize sets Ready, Reconciling and Stalled.
func summarize(set condition.Setter, p *problem, format string, args ...any) {
	if p == nil {
		set.True(condition.Ready, "Ready", format, args...)
		set.Remove(condition.Reconciling, condition.Stalled)
		return
	}
	set.False(condition.Ready, p.reason, "%s", p.message)
	if p.stalled {
		set.True(condition.Stalled, p.reason, "%s", p.message)
		set.Remove(condition.Reconciling)
	} else {
		set.True(condition.Reconciling, p.reason, "%s", p.message)
		set.Remove(condition.Stalled)
	}
}

func meshProblem(m *v1alpha1.ClusterMesh, f *Facts) *problem {
	if m.Spec.Suspend {
		return &problem{"Suspended", "suspended: nothing is exchanged with other clusters, the datapath keeps what it has", true}
	}
	if err := export.CheckMesh(&m.Spec); err != nil {
		return &problem{"Unusable", "the spec can't be used, what was known before stays in force: " + err.Error(), true}
	}
	if f.Federated.Impostor != "" {
		return &problem{"ClusterNameTaken", f.Federated.Impostor + "; give each cluster its own name and credential", true}
	}
	for _, c := range m.Status.Conditions {
		if c.Type == v1alpha1.ConditionStoreReachable && c.Status != "True" {
			return &problem{reason: c.Reason, message: c.Message}
		}
	}
	if !f.Store.Publish.Synced {
		return &problem{reason: "Publishing", message: fmt.Sprintf("%d changes are still to be published", f.Store.Publish.Pending)}
	}
	for _, c := range m.Status.Conditions {
		if c.Type == v1alpha1.ConditionEncryptionEnforced && c.Status != "True" && m.Spec.Encryption.Mode != v1alpha1.EncryptionNone {
			return &problem{reason: c.Reason, message: c.Message}
		}
	}
	if silent := silentNodes(f); len(silent) > 0 {
		return &problem{reason: "NodesNotReady", message: "no recent report from the agents of " + names(silent)}
	}
	return nil
}

func setStoreReachable(set condition.Setter, m *v1alpha1.ClusterMesh, f *Facts) {
	typ := v1alpha1.ConditionStoreReachable
	var open *store.OpenError
	switch err := f.Store.Err; {
	case m.Spec.Suspend:
		set.Unknown(typ, "Suspended", "not connected while suspended")
	case errors.As(err, &open):
		set.False(typ, string(open.Layer)+"Failed", "%v", open)
	case err != nil:
		set.False(typ, "NotConfigured", "%v", err)
	case f.Store.Watch.LastError != nil && !f.Store.Watch.Reachable:
		set.False(typ, "ConnectionLost", "%v", f.Store.Watch.LastError)
	case f.Store.Publish.LastError != nil && !f.Store.Publish.Reachable:
		set.False(typ, "WriteFailed", "%v", f.Store.Publish.LastError)
	case !f.Store.Isolated:
		// Not a reason to stop, but one to act: any member could speak for any other.
		set.True(typ, "NotIsolated", "connected; the shared etcd lets this cluster write under other clusters' names: turn on its role-based access control")
	default:
		set.True(typ, "Connected", "connected; this cluster can write only under its own name")
	}
}

func setEncryption(set condition.Setter, m *v1alpha1.ClusterMesh, f *Facts) {
	typ := v1alpha1.ConditionEncryptionEnforced
	if m.Spec.Encryption.Mode == v1alpha1.EncryptionNone {
		set.False(typ, "Disabled", "spec.encryption.mode is None: nothing crosses clusters, and traffic within this one is left as its network carries it")
		return
	}
	var without []string
	kinds := map[string]int{}
	for _, n := range f.Nodes {
		a := f.Agents[n]
		if a == nil || a.Status.WireGuardPublicKey == "" || a.Status.Encryption == "" {
			without = append(without, n)
			continue
		}
		kinds[a.Status.Encryption]++
	}
	switch {
	case len(f.Nodes) == 0:
		set.Unknown(typ, "NoNodes", "there are no nodes")
	case len(without) > 0:
		set.False(typ, "NodesNotEncrypting", "no tunnel yet on %s; nothing is sent to or from their pods across clusters", names(without))
	default:
		var used []string
		for _, k := range slices.Sorted(maps.Keys(kinds)) {
			used = append(used, fmt.Sprintf("%s on %d nodes", k, kinds[k]))
		}
		set.True(typ, "Enforced", "%s", strings.Join(used, ", "))
	}
}

// setPolicyMode says whether policies are enforced in this cluster.
func setPolicyMode(set condition.Setter, m *v1alpha1.ClusterMesh) {
	if m.Spec.Policy.Mode == v1alpha1.PolicyAudit {
		set.False(v1alpha1.ConditionPolicyEnforced, "Audited", "spec.policy.mode is Audit: no policy of this cluster denies anything; what one would have denied is reported")
		return
	}
	set.True(v1alpha1.ConditionPolicyEnforced, "Enforced", "policies are enforced, but for those that are in Audit mode themselves or by their namespace")
}

// setMembers names clusters that were not let in.
func setMembers(set condition.Setter, f *Facts) {
	var refused []string
	for name, why := range f.Refused {
		refused = append(refused, name+": "+why)
	}
	for name, r := range f.Federated.Remotes {
		if r.Decision != nil && r.Decision.Refused != nil {
			refused = append(refused, name+": "+r.Decision.Refused.Error())
		}
	}
	if len(refused) == 0 {
		set.Remove(v1alpha1.ConditionMembersAccepted)
		return
	}
	slices.Sort(refused)
	set.False(v1alpha1.ConditionMembersAccepted, "ClusterRefused", "%s", strings.Join(refused[:min(len(refused), shown)], "; "))
}

func agentCounts(f *Facts) v1alpha1.NodeCounts {
	return v1alpha1.NodeCounts{Total: int32(len(f.Nodes)), Ready: int32(len(f.Nodes) - len(silentNodes(f)))}
}

// silentNodes lists nodes without a recent report.
func silentNodes(f *Facts) []string {
	var silent []string
	for _, n := range f.Nodes {
		a := f.Agents[n]
		if a == nil || a.Status.LastReportTime == nil || f.Now.Sub(a.Status.LastReportTime.Time) > quiet {
			silent = append(silent, n)
		}
	}
	return silent
}

func names(list []string) string {
	slices.Sort(list)
	if len(list) > shown {
		return strings.Join(list[:shown], ", ") + fmt.Sprintf(" and %d more", len(list)-shown)
	}
	return strings.Join(list, ", ")
}
