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

// sourcesCheck judges where policies come from.
func sourcesCheck(s Snapshot) Check {
	var f finding
	var revisions []string
	for _, src := range s.Sources {
		name := src.Namespace + "/" + src.Name
		if src.Status.LastAppliedRevision != "" {
			revisions = append(revisions, fmt.Sprintf("%s at %s on %d of %s", name, ShortRevision(src.Status.LastAppliedRevision),
				src.Status.Nodes.Realized, plural(int(src.Status.Nodes.Total), "node", "nodes")))
		}
		source(&f, name, src)
	}
	summary := "no PolicySource; policies are applied by hand"
	if len(s.Sources) > 0 {
		summary = plural(len(s.Sources), "source", "sources")
	}
	if len(revisions) > 0 {
		summary += ": " + shorten(revisions)
	}
	return f.check("fl-policy-sources-ready", SectionPolicy, summary)
}

func source(f *finding, name string, src v1alpha1.PolicySource) {
	ready := meta.FindStatusCondition(src.Status.Conditions, "Ready")
	st := src.Status
	switch {
	case src.Spec.Suspend:
		f.warn("set spec.suspend of the PolicySource to false to go on", name+": suspended, what was applied stays enforced")
	case ready == nil:
		f.fail("see that the operator runs", name+": the operator has said nothing about it yet")
	case ready.Status != metav1.ConditionTrue:
		details := []string{fmt.Sprintf("%s: %s: %s", name, ready.Reason, ready.Message)}
		if st.LastAppliedRevision != "" {
			details = append(details, "  still enforced: "+ShortRevision(st.LastAppliedRevision))
		}
		f.fail("the message says which file or which credential; the last good revision stays enforced", details...)
	case st.Nodes.Realized < st.Nodes.Total:
		f.fail("see the agents' logs on those nodes", fmt.Sprintf("%s: %s is on %d of %d nodes, not on %s", name,
			ShortRevision(st.LastAppliedRevision), st.Nodes.Realized, st.Nodes.Total, strings.Join(st.Nodes.Failing, ", ")))
	}
}

// policiesCheck judges whether each policy is in the kernel of every node.
func policiesCheck(s Snapshot) Check {
	var f finding
	var realized, audit int
	one := func(name string, mode v1alpha1.PolicyMode, generation int64, st v1alpha1.MeshPolicyStatus) {
		if mode == v1alpha1.PolicyAudit {
			audit++
		}
		if policy(&f, name, generation, st) {
			realized++
		}
	}
	for _, p := range s.Policies {
		one("MeshNetworkPolicy "+p.Namespace+"/"+p.Name, p.Spec.Mode, p.Generation, p.Status)
	}
	for _, p := range s.ClusterPolicies {
		one("ClusterMeshNetworkPolicy "+p.Name, p.Spec.Mode, p.Generation, p.Status)
	}
	all := len(s.Policies) + len(s.ClusterPolicies)
	summary := "no mesh policy"
	if all > 0 {
		summary = fmt.Sprintf("%d of %s on every node", realized, plural(all, "mesh policy", "mesh policies"))
	}
	if audit > 0 {
		summary += fmt.Sprintf(", %d of them audit only", audit)
	}
	return f.check("fl-policies-realized", SectionPolicy, summary)
}

func policy(f *finding, name string, generation int64, st v1alpha1.MeshPolicyStatus) bool {
	ready := meta.FindStatusCondition(st.Conditions, "Ready")
	switch {
	case ready != nil && ready.Status == metav1.ConditionFalse && st.Nodes.Realized >= st.Nodes.Total:
		f.fail("correct the policy; until then its last good form is enforced", fmt.Sprintf("%s: %s: %s", name, ready.Reason, ready.Message))
	case st.ObservedGeneration != generation:
		f.warn("wait a moment; if it stays, see that the operator runs", name+": the newest change has not been looked at yet")
	case st.Nodes.Realized < st.Nodes.Total:
		f.fail("see the agents' logs on those nodes", fmt.Sprintf("%s: on %d of %d nodes, not on %s", name,
			st.Nodes.Realized, st.Nodes.Total, strings.Join(st.Nodes.Failing, ", ")))
	default:
		return true
	}
	return false
}

// ShortRevision cuts a commit in branch@sha1:commit to what people compare.
func ShortRevision(revision string) string {
	branch, hash, ok := strings.Cut(revision, ":")
	if !ok || len(hash) < 12 {
		return revision
	}
	return branch + ":" + hash[:12]
}
