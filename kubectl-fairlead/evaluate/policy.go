// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
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
		f.fail("see the agents' logs on those nodes", fmt.Sprintf("%s: %s is on %s", name, ShortRevision(st.LastAppliedRevision), of(st.Nodes)))
	}
}

// saying is what the first node that says something of a policy says.
type saying struct{ problem, warning string }

// sayings are what nodes say of policies, by their kinds and names as people write them. What a namespace says of its policies
// and nobody heeds has a check of its own.
func sayings(s Snapshot) map[string]saying {
	out := map[string]saying{}
	for _, n := range s.Nodes {
		for _, p := range n.Status.Policies {
			name, ok := policyName(p.Key)
			if p.Warning != "" && p.Warning == s.Modes[namespaceOf(p.Key)].Problem {
				p.Warning = ""
			}
			if !ok || p.Error == "" && p.Warning == "" {
				continue
			}
			was := out[name]
			if was.problem == "" && p.Error != "" {
				was.problem = n.Name + ": " + p.Error
			}
			was.warning = cmp.Or(was.warning, p.Warning)
			out[name] = was
		}
	}
	return out
}

// policyName reads a record's key: cluster/policies/kind/namespace/name, with - for no namespace.
func policyName(key string) (string, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return "", false
	}
	kind, namespace, name := parts[2], parts[3], parts[4]
	if namespace == "-" {
		return kind + " " + name, true
	}
	return kind + " " + namespace + "/" + name, true
}

// namespaceOf a policy, by its record's key.
func namespaceOf(key string) string {
	if parts := strings.Split(key, "/"); len(parts) == 5 {
		return parts[3]
	}
	return ""
}

// policiesCheck judges whether each policy is in the kernel of every node, as it is written now. Kinds of others have no
// status of ours, so of them what nodes say is compared with what is written.
func policiesCheck(s Snapshot) Check {
	var f finding
	var realized, audit int
	said := sayings(s)
	one := func(name, namespace string, mode v1alpha1.PolicyMode, generation int64, st v1alpha1.MeshPolicyStatus) {
		if mode == v1alpha1.PolicyAudit || modeOf(s, namespace).Audit() {
			audit++
		}
		if policy(&f, name, generation, st, said[name]) {
			realized++
		}
	}
	for _, p := range s.Policies {
		one("MeshNetworkPolicy "+p.Namespace+"/"+p.Name, p.Namespace, p.Spec.Mode, p.Generation, p.Status)
	}
	for _, p := range s.ClusterPolicies {
		one("ClusterMeshNetworkPolicy "+p.Name, "", p.Spec.Mode, p.Generation, p.Status)
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		kind, _, _ := strings.Cut(name, " ")
		if k, known := v1alpha1.PolicyKindNamed(kind); !known || k.Status != nil {
			continue
		}
		if say := said[name]; say.problem != "" {
			f.fail("the message says what to correct in the policy, or what the node lacks", name+": "+say.problem)
		} else {
			f.warn(warningHint, name+": "+say.warning)
		}
	}
	enforcedCheck(&f, s)
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

const warningHint = "select pods by labels that identities have: docs/concepts/identity.md"

func policy(f *finding, name string, generation int64, st v1alpha1.MeshPolicyStatus, say saying) bool {
	ready := meta.FindStatusCondition(st.Conditions, "Ready")
	switch {
	case ready == nil || st.ObservedGeneration != generation:
		f.fail("wait a moment; if it stays, see that the operator runs", name+": its newest change has not been looked at yet, nodes enforce what was before")
	case st.Nodes.Realized < st.Nodes.Total:
		if say.problem != "" {
			f.fail(hintLagging, fmt.Sprintf("%s: on %s", name, of(st.Nodes)), "  "+say.problem)
		} else {
			f.fail(hintLagging, fmt.Sprintf("%s: on %s%s", name, of(st.Nodes), because(ready)))
		}
	case ready.Status != metav1.ConditionTrue:
		f.fail("correct the policy; until then its last good form is enforced", fmt.Sprintf("%s: %s: %s", name, ready.Reason, ready.Message))
	default:
		if say.warning != "" {
			f.warn(warningHint, name+": "+say.warning)
		}
		return true
	}
	return false
}

// of says on how many nodes something is, and where it isn't, as far as that is known.
func of(n v1alpha1.PolicyNodes) string {
	text := fmt.Sprintf("%d of %s", n.Realized, plural(int(n.Total), "node", "nodes"))
	if len(n.Failing) > 0 {
		text += ", not on " + strings.Join(n.Failing, ", ")
	}
	return text
}

func because(ready *metav1.Condition) string {
	if ready.Status == metav1.ConditionTrue || ready.Message == "" {
		return ""
	}
	return ": " + ready.Message
}

// ShortRevision cuts a commit in branch@sha1:commit to what people compare.
func ShortRevision(revision string) string {
	branch, hash, ok := strings.Cut(revision, ":")
	if !ok || len(hash) < 12 {
		return revision
	}
	return branch + ":" + hash[:12]
}
