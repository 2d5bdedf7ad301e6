// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// modeOf is what others than its spec make of the mode of a policy in a namespace; empty: one of the cluster.
func modeOf(s Snapshot, namespace string) record.Mode {
	return record.ModeOf(namespace, s.Modes[namespace], s.Mesh.Spec.Policy.Mode)
}

// modesCheck tells of policies that deny nothing because somebody else than their authors says so. There is none where nobody
// does: policies that are in Audit mode themselves are counted with the others.
func modesCheck(s Snapshot) []Check {
	var f finding
	summary := "a namespace's word on the mode of its policies is not understood"
	for _, name := range slices.Sorted(maps.Keys(s.Modes)) {
		switch says := s.Modes[name]; {
		case says.Audit:
			summary = "some policies are audited, not enforced"
			f.warn("remove the annotation "+v1alpha1.AnnotationPolicyMode+" to have a namespace's policies enforced again", "namespace "+name+" has its own policies audited: what they deny passes and is reported")
		case says.Problem != "":
			f.warn("give the annotation "+v1alpha1.AnnotationPolicyMode+" the value Audit or Enforce, or remove it", says.Problem)
		}
	}
	if s.Mesh.Spec.Policy.Mode == v1alpha1.PolicyAudit {
		summary = "no policy is enforced"
		f.warn("", "the ClusterMesh has all policies of this cluster audited: what they deny passes and is reported")
		f.hint = "set spec.policy.mode of the ClusterMesh to Enforce to have policies enforced again"
	}
	if f.state == "" {
		return nil
	}
	return []Check{f.check("fl-policies-enforced", SectionPolicy, summary)}
}
