// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// The engine is told of services that policies name, when they, what is behind them or nodes change, and of nothing else.
func TestNamedServices(t *testing.T) {
	name := policy.ServiceName{Namespace: "a", Name: "s"}
	planner := service.NewPlanner(service.Config{Cluster: "east"})
	p := newPolicyPlan(Config{Cluster: "east", Limits: limits}, NewMemory().Policy, planner)
	policyOf := func(service string) *policy.Model {
		return policy.Parse(&record.Policy{PolicyKind: policy.KindMeshNetworkPolicy, Namespace: "a", Name: "p",
			Spec: []byte(`{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"` + service + `"}]}]}]}}`)})
	}
	host, pod, foreign := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("10.2.0.9")
	selector := map[string]string{"app": "s"}
	for _, step := range []struct {
		name   string
		change func() (told bool)
		want   map[string]policy.Service
	}{
		{"a service that nobody names", func() bool {
			planner.SetService("east", "a", "s", &record.Service{Namespace: "a", Name: "s", Selector: selector})
			return p.named.change("a", "s")
		}, nil},
		{"a policy names it", func() bool { p.named.setPolicy("k", policyOf("s")); return true },
			map[string]policy.Service{"east": {Selector: selector}}},
		{"a slice", func() bool {
			planner.SetSlice("east", "a", "s-1", &record.Slice{Namespace: "a", Service: "s", Name: "s-1", Backends: []record.Backend{{Addr: host}, {Addr: pod}}})
			return p.named.change("a", "s")
		}, map[string]policy.Service{"east": {Selector: selector}}},
		{"one of the backends is a node", func() bool { return p.named.setNode(nil, &record.Node{Addresses: []netip.Addr{host}}) },
			map[string]policy.Service{"east": {Selector: selector, Addresses: []netip.Addr{host}}}},
		{"the node is told again", func() bool {
			return p.named.setNode(&record.Node{Addresses: []netip.Addr{host}}, &record.Node{Addresses: []netip.Addr{host}})
		}, map[string]policy.Service{"east": {Selector: selector, Addresses: []netip.Addr{host}}}},
		{"another cluster has it for itself", func() bool {
			planner.SetService("west", "a", "s", &record.Service{Namespace: "a", Name: "s", Global: true})
			planner.SetSlice("west", "a", "s-1", &record.Slice{Namespace: "a", Service: "s", Name: "s-1", Backends: []record.Backend{{Addr: foreign}}})
			return p.named.change("a", "s")
		}, map[string]policy.Service{"east": {Selector: selector, Addresses: []netip.Addr{host}}}},
		{"and shares it", func() bool {
			planner.SetService("west", "a", "s", &record.Service{Namespace: "a", Name: "s", Global: true, Shared: true})
			return p.named.change("a", "s")
		}, map[string]policy.Service{
			"east": {Selector: selector, Addresses: []netip.Addr{host}}, "west": {Addresses: []netip.Addr{foreign}, Global: true, Shared: true},
		}},
		{"the policy names another", func() bool { p.named.setPolicy("k", policyOf("t")); return true }, nil},
	} {
		told := step.change()
		if _, dirty := p.named.dirty[name]; dirty != told && step.want != nil {
			t.Errorf("%s: noted as changed: %t, said %t", step.name, dirty, told)
		}
		if got := p.named.clusters(name); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
		p.named.tell()
	}
	if len(p.named.uses) != 1 || len(p.named.by) != 1 {
		t.Errorf("uses %v of policies %v", p.named.uses, p.named.by)
	}
}
