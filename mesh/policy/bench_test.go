// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// bigWorld is a mesh of 10,000 identities in 200 namespaces of 2 clusters, with 1,000 policies: what services of a
// namespace say about each other, a few about other namespaces and clusters, and addresses outside.
func bigWorld() *World {
	const identities, namespaces, policies = 10_000, 100, 1_000
	w := &World{
		Cluster:    "east",
		Clusters:   map[string]map[string]string{"east": {"region": "eu"}, "west": {"region": "us"}},
		Identities: make(map[uint32]map[string]string, identities),
	}
	for i := range identities {
		cluster, id := "east", uint32(1<<16+256+i)
		if i%2 == 1 {
			cluster, id = "west", uint32(2<<16+256+i)
		}
		ns := fmt.Sprintf("ns-%d", i/2%namespaces)
		w.Identities[id] = pod(cluster, ns, "app", fmt.Sprintf("app-%d", i/2/namespaces), "tier", fmt.Sprintf("tier-%d", i%3))
	}
	for i := range policies {
		w.Policies = append(w.Policies, Parse(bigPolicy(i, fmt.Sprintf("ns-%d", i%namespaces))))
	}
	return w
}

func bigPolicy(i int, ns string) *record.Policy {
	app, friend := fmt.Sprintf("app-%d", i/100), fmt.Sprintf("app-%d", (i/100+1)%50)
	p := &record.Policy{PolicyKind: KindNetworkPolicy, Namespace: ns, Name: fmt.Sprintf("policy-%d", i)}
	switch i % 4 {
	case 0:
		p.Spec = fmt.Appendf(nil, `{"podSelector":{"matchLabels":{"app":%q}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":%q}}}],"ports":[{"port":8080}]}]}`, app, friend)
	case 1:
		p.Spec = fmt.Appendf(nil, `{"podSelector":{"matchLabels":{"app":%q}},"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"tier":"tier-1","app":%q}}}],"ports":[{"port":8000,"endPort":8100}]}]}`, app, friend)
	case 2:
		p.Spec = fmt.Appendf(nil, `{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"10.%d.0.0/16"}}]},{"to":[{"podSelector":{}}]}]}`, i%256)
	case 3:
		p.PolicyKind = KindMeshNetworkPolicy
		p.Spec = fmt.Appendf(nil, `{"podSelector":{"matchLabels":{"app":%q}},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":%q}}}]}],"deny":[{"peers":[{"clusterSelector":{"matchLabels":{"region":"us"}},"podSelector":{"matchLabels":{"tier":"tier-2"}}}]}]}}`, app, friend)
	}
	return p
}
