// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
)

// enforced holds what a pod's node enforces against the policies that were read, by the contents that its agent reports: the
// verdict is about what is in the kernel, and where that differs it isn't known.
func enforced(c *world.Cluster, pod *world.Pod) (*Enforced, []string) {
	node := c.Node(pod.Node)
	if pod.Node == "" || node == nil || node.Reported.IsZero() {
		return nil, []string{fmt.Sprintf("node %q of pod %s: no agent has reported what it enforces; see kubectl fairlead status", pod.Node, pod)}
	}
	out := &Enforced{Node: node.Name, Policies: len(node.Enforces), Reported: node.Reported.UTC().Format(time.RFC3339)}
	revisions := map[string]bool{}
	for _, e := range node.Enforces {
		if e.Revision != "" {
			revisions[e.Revision] = true
		}
	}
	out.Revisions = slices.Sorted(maps.Keys(revisions))
	var missing []string
	say := func(key, format string, args ...any) {
		if concerns(key, pod.Namespace) {
			missing = append(missing, fmt.Sprintf("node %s, %s: ", node.Name, world.PolicyName(key))+fmt.Sprintf(format, args...))
		}
	}
	wanted := map[string]bool{}
	for _, p := range c.Policies {
		key := p.Model.Key()
		wanted[key] = true
		is, has := node.Enforces[key]
		switch {
		case !has:
			say(key, "not in force yet; ask again in a moment, or see kubectl fairlead status")
		case is.Content != p.Record.Content():
			say(key, "another state of it is in force than the API has (%s); ask again in a moment", cmp.Or(is.Revision, "applied by hand"))
		case is.Problem != "" && !says(p, is.Problem):
			say(key, "not in force as it is written: %s", is.Problem)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(node.Enforces)) {
		if !wanted[key] {
			say(key, "still in force, and gone from the API; ask again in a moment")
		}
	}
	return out, missing
}

// concerns says whether a policy can select pods of a namespace at all, by its key: kind/namespace/name.
func concerns(key, namespace string) bool {
	parts := strings.SplitN(key, "/", 3)
	return len(parts) != 3 || parts[1] == "-" || parts[1] == namespace
}

// says: the problem lies in the policy itself, which the engine knows as the agent does.
func says(p *world.Policy, problem string) bool {
	for _, own := range p.Model.Problems() {
		if !own.Warning && strings.HasPrefix(problem, own.Message) {
			return true
		}
	}
	return false
}
