// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// clustersCheck judges the exchange with every other cluster.
func clustersCheck(s Snapshot) Check {
	var f finding
	names := []string{s.Mesh.Spec.ClusterName + " (this one)"}
	ready := 1
	for _, c := range s.Clusters {
		if c.Name == s.Mesh.Spec.ClusterName {
			continue
		}
		names = append(names, c.Name)
		if remoteCluster(&f, c) {
			ready++
		}
	}
	if c := meta.FindStatusCondition(s.Mesh.Status.Conditions, v1alpha1.ConditionMembersAccepted); c != nil && c.Status == metav1.ConditionFalse {
		f.warn("compare what is refused with what its MeshCluster allows, or remove the cluster from the shared etcd", said(c)...)
	}
	if len(names) == 1 {
		f.warn("let a second cluster join with the same meshID and the same shared etcd", "no other cluster was found in the shared etcd")
	}
	summary := fmt.Sprintf("%d of %d ready: %s", ready, len(names), strings.Join(names, ", "))
	return f.check("fl-clusters-ready", SectionClusters, summary)
}

// hints by the condition that is not true, in the order in which one depends on the other.
var clusterConditions = []struct{ kind, hint string }{
	{v1alpha1.ConditionAccepted, "compare spec of the MeshCluster with what that cluster says of itself; correct whichever is wrong"},
	{v1alpha1.ConditionControlPlaneConnected, "that cluster's operator sends no heartbeat: look at it there; traffic goes on with what is known"},
	{v1alpha1.ConditionSynced, "that cluster's first complete export has not been seen yet: look at its operator"},
	{v1alpha1.ConditionTunnelHealthy, "see the section tunnels"},
	{"Ready", "kubectl describe meshcluster"},
}

func remoteCluster(f *finding, c v1alpha1.MeshCluster) bool {
	if c.Spec.Suspend {
		f.warn("set spec.suspend of the MeshCluster to false to go on", c.Name+": suspended, what was imported is frozen")
		return true
	}
	ok := true
	for _, want := range clusterConditions {
		got := meta.FindStatusCondition(c.Status.Conditions, want.kind)
		if got == nil && want.kind == "Ready" {
			f.fail("see that the operator runs", c.Name+": the operator has said nothing about it yet")
			return false
		}
		if got == nil || got.Status == metav1.ConditionTrue {
			continue
		}
		if want.kind == "Ready" && !ok {
			break // the conditions above have said why
		}
		f.fail(want.hint, fmt.Sprintf("%s: %s is %s (%s): %s", c.Name, want.kind, got.Status, got.Reason, got.Message))
		ok = false
	}
	if n := c.Status.RejectedRecords; n > 0 {
		details := []string{fmt.Sprintf("%s: %s refused", c.Name, plural(int(n), "record", "records"))}
		for _, r := range c.Status.Rejections {
			details = append(details, fmt.Sprintf("  %s: %s", r.Key, r.Reason))
		}
		f.warn("that cluster claims what its MeshCluster here does not let it; the rest of its records is used", details...)
	}
	return ok
}
