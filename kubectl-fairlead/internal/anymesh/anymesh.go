// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package anymesh makes random meshes with random policies, for property tests.
package anymesh

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Draw makes a random mesh of two clusters whose policies speak of few labels, so that rules meet pods and each other often.
func Draw(t *rapid.T) *world.Mesh {
	m := &world.Mesh{Clusters: map[string]*world.Cluster{}}
	var policies []*world.Policy
	for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
		policies = append(policies, drawPolicy(t, fmt.Sprintf("p%d", i)))
	}
	for i, name := range []string{"east", "west"} {
		c := &world.Cluster{
			Name: name, ID: uint8(i + 1), Labels: map[string]string{"env": name},
			Namespaces: map[string]map[string]string{"a": {"team": "red"}, "b": nil}, Policies: policies,
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i+1))},
			Nodes:    []*world.Node{{Cluster: name, Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))}}},
		}
		for n := range 4 {
			p := &world.Pod{
				Cluster: name, Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), Name: fmt.Sprintf("pod-%d", n), Node: "n1",
				Labels: map[string]string{}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i + 1), 0, byte(n + 1)})},
				Ports: []world.Port{{Name: "http", Proto: record.TCP, Number: rapid.SampledFrom([]uint16{80, 81, 8080}).Draw(t, "http")}},
			}
			for _, key := range []string{"app", "tier"} {
				if v := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, key); v != "" {
					p.Labels[key] = v
				}
			}
			c.Pods = append(c.Pods, p)
		}
		m.Clusters[name] = c
	}
	if err := m.Number(); err != nil {
		t.Fatal(err)
	}
	return m
}

type object = map[string]any

func anySelector(t *rapid.T, keys ...string) object {
	key := rapid.SampledFrom(keys).Draw(t, "key")
	value := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value")
	expression := func(op string, values ...string) object {
		e := object{"key": key, "operator": op}
		if len(values) > 0 {
			e["values"] = values
		}
		return object{"matchExpressions": []object{e}}
	}
	switch rapid.IntRange(0, 6).Draw(t, "selector") {
	case 0:
		return object{}
	case 1:
		return expression("Exists")
	case 2:
		return expression("DoesNotExist")
	case 3:
		return expression("NotIn", value)
	case 4:
		return expression("In", "x", "y")
	}
	return object{"matchLabels": object{key: value}}
}

func anyPods(t *rapid.T) object { return anySelector(t, "app", "tier") }

func anyPorts(t *rapid.T, named string) []object {
	switch rapid.IntRange(0, 4).Draw(t, "ports") {
	case 0:
		return []object{{"port": 80}}
	case 1:
		return []object{{"port": 80, "endPort": 8080}}
	case 2:
		return []object{{named: "http"}}
	case 3:
		return []object{{"port": 8080}, {"protocol": "UDP"}}
	}
	return nil
}

func anyRules(t *rapid.T, what, peers, block, named string, most int) []object {
	var out []object
	for range rapid.IntRange(0, most).Draw(t, what) {
		rule := object{}
		if p := anyPorts(t, named); p != nil {
			rule["ports"] = p
		}
		if peers == "peers" && rapid.IntRange(0, 4).Draw(t, "icmp?") == 0 {
			rule["icmp"] = []object{rapid.SampledFrom([]object{
				{}, {"family": "IPv4"}, {"type": "EchoRequest"}, {"family": "IPv4", "type": 8}, {"family": "IPv4", "type": 13}, {"family": "IPv6", "type": "EchoReply"},
			}).Draw(t, "icmp")}
		}
		switch rapid.IntRange(0, 3).Draw(t, "peers") {
		case 0:
		case 1:
			p := object{"cidr": rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/24", "0.0.0.0/0"}).Draw(t, "cidr")}
			if block != "" {
				p = object{block: p}
			}
			rule[peers] = []object{p}
		default:
			p := object{"podSelector": anyPods(t)}
			if block == "" && rapid.Bool().Draw(t, "clusters?") {
				p["clusterSelector"] = object{}
			}
			if rapid.Bool().Draw(t, "namespaces?") {
				p["namespaceSelector"] = anySelector(t, "team")
			}
			rule[peers] = []object{p}
		}
		out = append(out, rule)
	}
	return out
}

// drawPolicy makes a random policy of any dialect.
func drawPolicy(t *rapid.T, name string) *world.Policy {
	rec := &record.Policy{PolicyKind: policy.KindMeshNetworkPolicy, Namespace: "a", Name: name}
	rec.Mode.ByNamespace = rapid.IntRange(0, 5).Draw(t, "audited by its namespace") == 0
	direction := func(what string) object {
		return object{
			"allow": anyRules(t, what+" allow", "peers", "", "name", 2), "deny": anyRules(t, what+" deny", "peers", "", "name", 1),
			"defaultAction": rapid.SampledFrom([]string{"Allow", "Deny", "Deny"}).Draw(t, "default"),
		}
	}
	spec := object{"podSelector": anyPods(t)}
	switch rapid.IntRange(0, 4).Draw(t, "dialect") {
	case 0:
		rec.PolicyKind = policy.KindNetworkPolicy
		spec["ingress"], spec["egress"] = anyRules(t, "ingress", "from", "ipBlock", "port", 2), anyRules(t, "egress", "to", "ipBlock", "port", 2)
	case 1:
		rec.PolicyKind, rec.Namespace = policy.KindClusterMeshNetworkPolicy, ""
		ingress := direction("ingress")
		spec["ingress"] = ingress
		if tier := anyTier(t, ""); tier != "" {
			spec["tier"], spec["priority"], ingress["pass"] = tier, anyPriority(t), anyRules(t, "pass", "peers", "", "name", 2)
		}
	case 2, 3:
		rec.PolicyKind, rec.Namespace = policy.KindClusterNetworkPolicy, ""
		spec = clusterNetworkPolicy(t)
	default:
		spec["ingress"], spec["egress"] = direction("ingress"), direction("egress")
	}
	if kind := rec.PolicyKind; kind == policy.KindMeshNetworkPolicy || kind == policy.KindClusterMeshNetworkPolicy {
		spec["mode"] = rapid.SampledFrom([]string{"Enforce", "Enforce", "Audit"}).Draw(t, "mode")
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	rec.Spec = text
	return &world.Policy{Record: rec, Model: policy.Parse(rec)}
}
