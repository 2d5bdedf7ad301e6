// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Evaluate judges each snapshot.
func Evaluate(snapshots []Snapshot) Report {
	r := Report{State: OK}
	var all []Check
	for _, s := range snapshots {
		c := cluster(s)
		all = append(all, c.Checks...)
		r.Clusters = append(r.Clusters, c)
	}
	r.State = worst(all)
	return r
}

func cluster(s Snapshot) ClusterReport {
	r := ClusterReport{Context: s.Context, Unreachable: s.Unreachable != "", Checks: checks(s)}
	if s.Mesh != nil {
		r.Cluster, r.Mesh = s.Mesh.Spec.ClusterName, s.Mesh.Spec.MeshID
	}
	r.State = worst(r.Checks)
	return r
}

// checks stop at a layer without which the next ones can say nothing.
func checks(s Snapshot) []Check {
	access := accessCheck(s)
	if access.State == Failing {
		return []Check{access}
	}
	out := []Check{}
	if access.State != OK {
		out = append(out, access)
	}
	if s.Mesh == nil {
		// Without one the operator waits and is not ready either; this is why.
		return append(out, membershipMissing(), componentsCheck(s))
	}
	out = append(out, componentsCheck(s), membershipCheck(s), clustersCheck(s))
	out = append(out, nodesCheck(s), syncCheck(s))
	if s.Mesh.Spec.Encryption.Mode != v1alpha1.EncryptionNone {
		out = append(out, tunnelsCheck(s))
	}
	out = append(out, servicesCheck(s))
	out = append(out, sourcesCheck(s), policiesCheck(s))
	out = append(out, modesCheck(s)...)
	if worst(out) != Failing {
		out = append(out, readyCheck(s)...)
	}
	return out
}

// readyCheck passes on what the operator holds against the mesh and no check has found a better word for.
func readyCheck(s Snapshot) []Check {
	ready := meta.FindStatusCondition(s.Mesh.Status.Conditions, "Ready")
	if s.Mesh.Spec.Suspend || ready == nil || ready.Status == metav1.ConditionTrue {
		return nil
	}
	var f finding
	f.fail("kubectl describe clustermesh mesh", said(ready)...)
	return []Check{f.check("fl-mesh-ready", SectionClusters, "the operator says that this cluster's membership is not ready")}
}

func accessCheck(s Snapshot) Check {
	var f finding
	summary := "the Kubernetes API answers"
	switch {
	case s.Unreachable != "":
		summary = "the Kubernetes API can't be used"
		f.fail("see that kubectl --context reaches this cluster", s.Unreachable)
		return f.check("fl-api-reachable", SectionAccess, summary)
	case s.NotInstalled:
		f.fail("install it: kubectl apply -k config/default", "the API knows no kinds of the group fairlead.dev")
		return f.check("fl-installed", SectionAccess, "Fairlead is not installed")
	case len(s.Unread) > 0:
		f.warn("ask for the ClusterRole fairlead-viewer and for view in "+Namespace, s.Unread...)
		summary = fmt.Sprintf("%s could not be read, so the checks that need them say less", plural(len(s.Unread), "kind", "kinds"))
	}
	return f.check("fl-api-readable", SectionAccess, summary)
}

// Namespace that Fairlead runs in.
const Namespace = "fairlead-system"

func componentsCheck(s Snapshot) Check {
	var f finding
	parts := []struct {
		name string
		w    Workload
	}{{"operator", s.Operator}, {"agents", s.Agent}, {"tunnel processes", s.Tunnel}}
	summary := ""
	for i, p := range parts {
		if i > 0 {
			summary += ", "
		}
		summary += fmt.Sprintf("%s %d/%d", p.name, p.w.Ready, p.w.Want)
		switch {
		case !p.w.Found:
			f.warn("apply config/default again", p.name+": not found in "+Namespace)
		case p.w.Ready < p.w.Want:
			f.fail("look at the pods: kubectl -n "+Namespace+" describe pods",
				fmt.Sprintf("%s: %d of %d ready", p.name, p.w.Ready, p.w.Want))
		case p.w.Want == 0 && p.name == "operator":
			f.fail("scale it up: kubectl -n "+Namespace+" scale deployment fairlead-operator --replicas=1",
				"operator: scaled to zero; traffic goes on with what the nodes know, nothing new reaches them")
		}
	}
	return f.check("fl-components-running", SectionComponents, summary)
}

func membershipMissing() Check {
	var f finding
	f.fail("create one: config/samples/clustermesh.yaml shows how", "there is no ClusterMesh named mesh")
	return f.check("fl-mesh-configured", SectionStore, "this cluster is no member of a mesh yet")
}

// membershipCheck tells how this cluster stands with the shared etcd.
func membershipCheck(s Snapshot) Check {
	var f finding
	m := s.Mesh
	store := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionStoreReachable)
	ready := meta.FindStatusCondition(m.Status.Conditions, "Ready")
	summary := "shared etcd reachable"
	switch {
	case m.Spec.Suspend:
		summary = "suspended: nothing is exported or imported"
		f.warn("set spec.suspend of ClusterMesh mesh to false to go on")
	case m.Status.ObservedGeneration != m.Generation:
		summary = "the operator has not looked at the newest ClusterMesh yet"
		f.fail("see that the operator runs: kubectl -n "+Namespace+" logs deploy/fairlead-operator",
			fmt.Sprintf("generation %d, observed %d", m.Generation, m.Status.ObservedGeneration))
	case store == nil:
		summary = "not known whether the shared etcd can be reached"
		f.fail("see the operator's log: kubectl -n "+Namespace+" logs deploy/fairlead-operator", said(ready)...)
	case store.Status != metav1.ConditionTrue:
		summary = "the shared etcd can't be used; the nodes keep what they know"
		f.fail("check spec.store of ClusterMesh mesh and its Secret, and that the endpoints can be reached", said(store)...)
	case store.Reason == notIsolated:
		f.warn("turn on role-based access control at the shared etcd; each cluster's user needs its own prefix and no more", said(store)...)
	}
	return f.check("fl-store-reachable", SectionStore, summary)
}

// notIsolated is the reason with which the operator says that the shared etcd lets it write where it must not.
const notIsolated = "NotIsolated"

func said(c *metav1.Condition) []string {
	if c == nil {
		return nil
	}
	return []string{c.Reason + ": " + c.Message}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
