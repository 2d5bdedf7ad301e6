// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// A denial of a service that the subject's own node serves holds at each of that node's addresses, as one that names the node does:
// the API server listens at a bridge's as well.
func TestReviewAServiceOnTheOwnNodeIsDeniedAtAllItsAddresses(t *testing.T) {
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
