// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

const hintLagging = "wait a moment; if it stays, see the agents' logs on those nodes"

// enforcedCheck compares what nodes say that they enforce with what is written. It is needed for kinds of policies that have no
// status of ours, and for policies that are gone; of the others the operator's status says the same, which the plugin doesn't
// hash itself: it may be of another version, and know other fields, than the operator.
func enforcedCheck(f *finding, s Snapshot) {
	if s.Mesh == nil {
		return
	}
	enforced := enforcedBy(s.Nodes)
	written := map[string]bool{}
	write := func(kind, namespace, name string) string {
		key, err := record.PolicyKey(s.Mesh.Spec.ClusterName, kind, namespace, name)
		if err == nil {
			written[key] = true
		}
		return key
	}
	for _, p := range s.Policies {
		write(v1alpha1.KindMeshNetworkPolicy, p.Namespace, p.Name)
	}
	for _, p := range s.ClusterPolicies {
		write(v1alpha1.KindClusterMeshNetworkPolicy, "", p.Name)
	}
	for _, p := range s.OtherPolicies {
		kind, _ := v1alpha1.PolicyKindOf(p)
		key := write(kind.Name, p.GetNamespace(), p.GetName())
		spec, err := json.Marshal(kind.Spec(p))
		name, ok := policyName(key)
		if err != nil || !ok {
			continue // the operator can't export it either, and says so
		}
		on := asWritten(s, p, spec, enforced[key])
		if len(on) < countSaying(s.Nodes) {
			f.fail(hintLagging, fmt.Sprintf("%s: as it is written now on %d of %s", name, len(on), plural(countSaying(s.Nodes), "node", "nodes")))
		}
	}
	if len(s.Unread) > 0 {
		return // what wasn't read is not gone
	}
	for _, key := range slices.Sorted(maps.Keys(enforced)) {
		if !written[key] && record.ClusterOf(key) == s.Mesh.Spec.ClusterName {
			_, policy, _ := strings.Cut(key, "/"+record.KindPolicy+"/")
			name, _, _ := strings.Cut(policy, "/")
			if kind, _ := v1alpha1.PolicyKindNamed(name); kind.OnRequest {
				continue // those count that an operator has said something of, which comes a moment later
			}
			f.fail(hintLagging, policy+": is gone, and still enforced by "+shorten(flatten(enforced[key])))
		}
	}
}

// asWritten are the nodes that have a policy as it is written now, and in the mode that its namespace and its cluster give it.
func asWritten(s Snapshot, p v1alpha1.PolicyObject, spec []byte, enforced map[string][]string) []string {
	rec := record.Policy{UID: string(p.GetUID()), Generation: p.GetGeneration(), Spec: spec, Mode: modeOf(s, p.GetNamespace())}
	on := enforced[rec.Content()]
	if s.ModesUnknown && !rec.Mode.Audit() && p.GetNamespace() != "" {
		rec.Mode.ByNamespace = true // perhaps
		on = slices.Concat(on, enforced[rec.Content()])
	}
	return on
}

// enforcedBy gives the nodes that enforce a policy without an error, by the policy's key and content.
func enforcedBy(nodes []v1alpha1.MeshNode) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	for _, n := range nodes {
		for _, p := range n.Status.Policies {
			if p.Content == "" || p.Error != "" {
				continue
			}
			if out[p.Key] == nil {
				out[p.Key] = map[string][]string{}
			}
			out[p.Key][p.Content] = append(out[p.Key][p.Content], n.Name)
		}
	}
	return out
}

// countSaying counts the nodes that say what they enforce. Agents that are older list policies without their content.
func countSaying(nodes []v1alpha1.MeshNode) int {
	count := 0
	for _, n := range nodes {
		silent := slices.ContainsFunc(n.Status.Policies, func(p v1alpha1.NodePolicy) bool { return p.Content == "" && p.Error == "" })
		if !silent {
			count++
		}
	}
	return count
}

func flatten(byContent map[string][]string) []string {
	var names []string
	for _, n := range byContent {
		names = append(names, n...)
	}
	slices.Sort(names)
	return names
}
