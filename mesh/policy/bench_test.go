// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

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

// nodeSubjects are the identities of the pods of one node of 60.
func nodeSubjects() map[uint32]bool {
	out := map[uint32]bool{}
	for i := range 60 {
		out[uint32(1<<16+256+i*134)] = true
	}
	return out
}

// BenchmarkFull builds everything from nothing, with the policies parsed: what an agent does when it starts.
func BenchmarkFull(b *testing.B) {
	w := bigWorld()
	for _, bench := range []struct {
		name     string
		subjects map[uint32]bool
	}{{"Node", nodeSubjects()}, {"AllSubjects", nil}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e := NewEngine(Config{Cluster: w.Cluster, Limits: roomy})
				load(e, w, bench.subjects)
				e.Step()
				report(b, e)
			}
		})
	}
}

func report(b *testing.B, e *Engine) {
	s := e.Stats()
	b.ReportMetric(float64(s.Sets), "sets")
	b.ReportMetric(float64(s.Classes), "classes")
	b.ReportMetric(float64(s.Chunks), "chunks")
}

// BenchmarkParse reads all policies: what is paid once for a record.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		bigWorld()
	}
}

// BenchmarkChange is what a change costs a node that has everything.
func BenchmarkChange(b *testing.B) {
	w := bigWorld()
	// Two versions of each, of subjects that the node has.
	app := [2]*Model{
		parseMesh("app", `{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ns-0"}},"podSelector":{"matchLabels":{"app":"app-0"}},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":"app-7"}}}],"ports":[{"port":80}]}]}}`),
		parseMesh("app", `{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ns-0"}},"podSelector":{"matchLabels":{"app":"app-0"}},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":"app-8"}}}],"ports":[{"port":80}]}]}}`),
	}
	port := [2]*Model{
		parseMesh("port", `{"podSelector":{"matchLabels":{"app":"app-0"}},"egress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":"app-7"}}}],"ports":[{"port":80}]}]}}`),
		parseMesh("port", `{"podSelector":{"matchLabels":{"app":"app-0"}},"egress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":"app-7"}}}],"ports":[{"port":81}]}]}}`),
	}
	block := [2]*Model{
		parseMesh("block", `{"podSelector":{"matchLabels":{"app":"app-0"}},"egress":{"defaultAction":"Allow","deny":[{"peers":[{"cidr":"192.0.2.0/24"},{"cidr":"198.51.100.0/24","except":["198.51.100.9/32"]}]}]}}`),
		parseMesh("block", `{"podSelector":{"matchLabels":{"app":"app-0"}},"egress":{"defaultAction":"Allow","deny":[{"peers":[{"cidr":"192.0.2.0/25"},{"cidr":"198.51.100.0/24","except":["198.51.100.9/32"]}]}]}}`),
	}
	named := parseMesh("named", `{"podSelector":{},"egress":{"allow":[{"ports":[{"name":"http"}]}]}}`)
	far := pod("west", "ns-7", "app", "app-3", "tier", "tier-1")
	everywhere := [2]*Model{parseMesh("everywhere", `{"podSelector":{},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"namespaceSelector":{}}],"ports":[{"port":443}]}]}}`)}
	half := [2]*Model{parseMesh("half", `{"podSelector":{},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["tier-2"]}]}}]}]}}`)}
	for _, bench := range []struct {
		name   string
		change func(e *Engine, n int)
	}{
		{"Identity", func(e *Engine, n int) { e.SetIdentity(uint32(2<<16+60000+n%4000), far) }},
		{"PolicyOfApp", func(e *Engine, n int) { e.SetPolicy(app[0].key, app[n%2]) }},
		{"PolicyOfPort", func(e *Engine, n int) { e.SetPolicy(port[0].key, port[n%2]) }},
		{"PolicyOfCIDRs", func(e *Engine, n int) { e.SetPolicy(block[0].key, block[n%2]) }},
		{"PolicyOfCIDRsOf50000", func(e *Engine, n int) { e.SetPolicy(block[0].key, block[n%2]) }},
		{"PolicyAboutEverybody", func(e *Engine, n int) { e.SetPolicy(everywhere[0].key, everywhere[n%2]) }},
		{"PolicyAboutTwoThirds", func(e *Engine, n int) { e.SetPolicy(half[0].key, half[n%2]) }},
		{"NamedPort", func(e *Engine, n int) {
			e.SetNamedPorts(2<<16+257, map[string][]uint16{"http/TCP": {uint16(8080 + n%2)}})
		}},
		{"ClusterLabels", func(e *Engine, n int) { e.SetCluster("west", map[string]string{"region": []string{"us", "eu"}[n%2]}) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			e := NewEngine(Config{Cluster: w.Cluster, Limits: roomy})
			load(e, w, nodeSubjects())
			switch bench.name {
			case "NamedPort":
				e.SetPolicy(named.key, named)
			case "PolicyOfCIDRsOf50000":
				for n := range 500 {
					m := denying(n, 100)
					e.SetPolicy(m.key, m)
				}
			}
			e.Step()
			rows, n := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				bench.change(e, n)
				rows += e.Step().rows()
			}
			b.ReportMetric(float64(rows)/float64(n), "rows/op")
		})
	}
}

// denying is a policy about some CIDRs, other ones for each n.
func denying(n, cidrs int) *Model {
	var peers []string
	for i := range cidrs {
		peers = append(peers, fmt.Sprintf(`{"cidr":"100.%d.%d.%d/32"}`, 64+n>>8, n&255, i))
	}
	spec := fmt.Sprintf(`{"podSelector":{"matchLabels":{"app":"app-%d"}},"egress":{"defaultAction":"Allow","deny":[{"peers":[%s]}]}}`, 1+n%20, strings.Join(peers, ","))
	return parseMesh(fmt.Sprintf("denying-%d", n), spec)
}

func parseMesh(name, spec string) *Model {
	return Parse(&record.Policy{PolicyKind: KindClusterMeshNetworkPolicy, Name: name, Spec: []byte(spec)})
}

func (d *Delta) rows() int { return len(d.Subjects) + d.Before.rows() + d.After.rows() }

func (r *Rows) rows() int {
	n := len(r.Sets) + len(r.Classes) + len(r.Identities) + len(r.CIDRs)
	for _, lines := range r.Groups {
		n += max(chunks(lines), 1)
	}
	return n
}
