// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func TestWhatStandsForAService(t *testing.T) {
	node, pod, mapped := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("10.1.0.9"), netip.MustParseAddr("::ffff:172.18.0.2")
	backends := []*record.Slice{{Backends: []record.Backend{{Addr: node}, {Addr: pod}}}, {Backends: []record.Backend{{Addr: mapped}}}}
	isNode := func(a netip.Addr) bool { return a == node }
	for _, tt := range []struct {
		name      string
		selector  map[string]string
		want      map[string]string
		addresses []netip.Addr
	}{
		{"pods by the selector, the host network by address", map[string]string{"app": "a"}, map[string]string{"app": "a"}, []netip.Addr{node}},
		{"no selector", nil, nil, []netip.Addr{pod, node}},
		{"a label that identities leave out", map[string]string{"app": "a", "statefulset.kubernetes.io/pod-name": "a-0"}, nil, []netip.Addr{pod, node}},
		{"a label that pods can't have", map[string]string{identity.LabelNamespace: "other"}, nil, []netip.Addr{pod, node}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := NewService(&record.Service{Selector: tt.selector, Shared: true}, backends, isNode)
			if !reflect.DeepEqual(s.Selector, tt.want) || !reflect.DeepEqual(s.Addresses, tt.addresses) {
				t.Errorf("got %+v", s)
			}
			if s.Shared {
				t.Error("a service that isn't global is shared")
			}
		})
	}
}

// A change of a service compiles the policies anew that name it, and no others.
func TestAServiceConcernsThePoliciesThatNameIt(t *testing.T) {
	w := &World{Cluster: "east", Clusters: map[string]map[string]string{"east": {}}, Identities: map[uint32]map[string]string{
		identity.Of(1, identity.FirstLocal): identity.PodLabels("east", "a", "default", map[string]string{"app": "web"}, nil),
	}}
	for name, spec := range map[string]string{
		"names": `{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"s"}]}]}]}}`,
		"other": `{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"t"}]}]}]}}`,
		"none":  `{"podSelector":{},"egress":{"allow":[{"peers":[{"podSelector":{}}]}]}}`,
	} {
		w.Policies = append(w.Policies, Parse(&record.Policy{PolicyKind: KindMeshNetworkPolicy, Namespace: "a", Name: name, Spec: []byte(spec)}))
	}
	e, k := build(w)
	seqs := func() map[string]uint64 {
		out := map[string]uint64{}
		for _, p := range e.policies.byKey {
			out[p.source.rec.Name] = p.seq
		}
		return out
	}
	was := seqs()
	set := func(services map[string]Service) (changed []string) {
		e.SetService(ServiceName{"a", "s"}, services)
		k.apply(e.Step())
		now := seqs()
		for _, name := range sortedKeys(now) {
			if now[name] != was[name] {
				changed = append(changed, name)
			}
		}
		was = now
		return changed
	}
	web := func() map[string]Service {
		return map[string]Service{"east": {Selector: map[string]string{"app": "web"}}}
	}
	for i, want := range [][]string{{"names"}, nil, {"names"}, nil} {
		services := web()
		if i > 1 {
			services = nil
		}
		if got := set(services); !reflect.DeepEqual(got, want) {
			t.Errorf("change %d compiled %v anew, want %v", i, got, want)
		}
	}
}

func TestWhoIsBehindAService(t *testing.T) {
	addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	web := map[string]string{"app": "web"}
	for _, tt := range []struct {
		name       string
		east, west Service
		want       string
	}{
		{"pods of the own cluster", Service{Selector: web}, Service{}, "pods app=web in namespace a"},
		{"pods and a node", Service{Selector: web, Addresses: addr("172.18.0.2")}, Service{}, "172.18.0.2/32 or pods app=web in namespace a"},
		{"another shares it", Service{Global: true, Selector: web}, Service{Global: true, Shared: true, Selector: map[string]string{"app": "api"}},
			"pods app=web in namespace a or pods app=api,fairlead.dev/cluster=west in namespace a of all clusters"},
		{"another shares addresses", Service{Global: true}, Service{Global: true, Shared: true, Addresses: addr("10.2.0.9")}, "10.2.0.9/32"},
		{"another doesn't share it", Service{Global: true, Selector: web}, Service{Global: true, Addresses: addr("10.2.0.9")}, "pods app=web in namespace a"},
		{"another calls it shared, and not global", Service{Global: true, Selector: web}, Service{Shared: true, Addresses: addr("10.2.0.9")}, "pods app=web in namespace a"},
		{"the own one isn't global", Service{Selector: web}, Service{Global: true, Shared: true, Addresses: addr("10.2.0.9")}, "pods app=web in namespace a"},
		{"nothing is behind it", Service{Global: true}, Service{Global: true}, "0.0.0.0/32"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := named{cluster: "east", services: map[ServiceName]map[string]Service{{"a", "s"}: {"east": tt.east, "west": tt.west}}}
			if got, _ := n.ofService(ServiceName{"a", "s"}); peersText(&rule{peers: got}) != tt.want {
				t.Errorf("got  %s\nwant %s", peersText(&rule{peers: got}), tt.want)
			}
		})
	}
	n := named{cluster: "east", services: map[ServiceName]map[string]Service{{"a", "s"}: {"west": {Global: true, Shared: true, Selector: web}}}}
	if got, _ := n.ofService(ServiceName{"a", "s"}); peersText(&rule{peers: got}) != "0.0.0.0/32" {
		t.Errorf("the own cluster has none, and it means %s", peersText(&rule{peers: got}))
	}
}

// A denial of a service that the subject's own node serves holds at each of that node's addresses, as one that names the node does:
// the API server listens at a bridge's as well.
func TestAServiceOnTheOwnNodeIsDeniedAtAllItsAddresses(t *testing.T) {
	web := identity.Of(1, identity.FirstLocal)
	node, bridge := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("10.1.0.1")
	for name, spec := range map[string]string{
		"node":    `{"podSelector":{},"egress":{"defaultAction":"Allow","deny":[{"peers":[{"nodeSelector":{}}],"ports":[{"port":6443}]}]}}`,
		"service": `{"podSelector":{},"egress":{"defaultAction":"Allow","deny":[{"peers":[{"services":[{"name":"kubernetes","namespace":"default"}]}],"ports":[{"port":6443}]}]}}`,
	} {
		w := &World{
			Cluster: "east", Clusters: map[string]map[string]string{"east": {}}, Node: "n1",
			Identities: map[uint32]map[string]string{web: identity.PodLabels("east", "a", "default", nil, nil)},
			Nodes:      map[string]Node{"n1": {Addresses: []netip.Addr{node}}},
			Services:   map[ServiceName]map[string]Service{{"default", "kubernetes"}: {"east": {Addresses: []netip.Addr{node}}}},
			Policies:   []*Model{Parse(&record.Policy{PolicyKind: KindMeshNetworkPolicy, Namespace: "a", Name: name, Spec: []byte(spec)})},
		}
		r := NewReference(w)
		for _, at := range []netip.Addr{node, bridge} {
			c := Connection{Subject: web, Peer: identity.Host, Addr: at, Dir: Egress, Proto: protoTCP, Port: 6443}
			if d := r.Evaluate(c); d.Passes() {
				t.Errorf("denied by %s, the API server of the own node is reached at %s", name, at)
			}
		}
	}
}
