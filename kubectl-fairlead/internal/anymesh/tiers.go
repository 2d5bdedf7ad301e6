// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package anymesh

import "pgregory.net/rapid"

func anyTier(t *rapid.T, others ...string) string {
	return rapid.SampledFrom(append(others, "Admin", "Baseline")).Draw(t, "tier")
}

// Few priorities, so that policies often have the same.
func anyPriority(t *rapid.T) int { return rapid.IntRange(0, 1).Draw(t, "priority") }

// clusterNetworkPolicy makes a random spec of the dialect policy.networking.k8s.io.
func clusterNetworkPolicy(t *rapid.T) object {
	spec := object{"tier": anyTier(t), "priority": anyPriority(t), "subject": namespaced(t)}
	if rapid.Bool().Draw(t, "ingress?") {
		spec["ingress"] = clusterRules(t, "from")
	}
	if rapid.Bool().Draw(t, "egress?") {
		spec["egress"] = clusterRules(t, "to")
	}
	return spec
}

func clusterRules(t *rapid.T, peers string) []object {
	var out []object
	for range rapid.IntRange(1, 3).Draw(t, "rules") {
		rule := object{"action": rapid.SampledFrom([]string{"Accept", "Deny", "Pass"}).Draw(t, "action")}
		outside := peers == "to" && rapid.IntRange(0, 3).Draw(t, "networks?") == 0
		rule[peers] = []object{namespaced(t)}
		if outside {
			rule[peers] = []object{{"networks": []string{rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/24", "0.0.0.0/0"}).Draw(t, "network")}}}
		}
		switch rapid.IntRange(0, 3).Draw(t, "protocols") {
		case 0:
			rule["protocols"] = []object{{"tcp": object{"destinationPort": object{"number": 80}}}}
		case 1:
			rule["protocols"] = []object{{"tcp": object{"destinationPort": object{"range": object{"start": 80, "end": 8080}}}}, {"udp": object{}}}
		case 2:
			if !outside { // addresses have no names for ports
				rule["protocols"] = []object{{"destinationNamedPort": "http"}}
			}
		}
		out = append(out, rule)
	}
	return out
}

func namespaced(t *rapid.T) object {
	if rapid.Bool().Draw(t, "by namespace") {
		return object{"namespaces": anySelector(t, "team")}
	}
	return object{"pods": object{"namespaceSelector": anySelector(t, "team"), "podSelector": anyPods(t)}}
}
