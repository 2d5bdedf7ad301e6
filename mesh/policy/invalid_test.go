// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

const (
	web    = 1<<16 | 256
	db     = 1<<16 | 257
	other  = 1<<16 | 258
	farWeb = 2<<16 | 256
)

// smallWorld has two pods and a policy that lets everybody in, so that only the policy under test can close.
func smallWorld(p *record.Policy) *World {
	return &World{
		Cluster:  "east",
		Clusters: map[string]map[string]string{"east": {"env": "prod"}, "west": {"env": "dev"}},
		Identities: map[uint32]map[string]string{
			web: pod("east", "shop", "app", "web"), db: pod("east", "shop", "app", "db"), other: pod("east", "else", "app", "web"),
			farWeb: pod("west", "shop", "app", "web"),
		},
		Policies: []*Model{Parse(p)},
	}
}

func tcp80(subject, peer uint32, dir Direction) Connection {
	return Connection{Subject: subject, Peer: peer, Dir: dir, Proto: protoTCP, Port: 80}
}

// What can't be understood closes what it is about, in the directions it names, and says which field it is.
func TestInvalidPoliciesClose(t *testing.T) {
	const n, m, c, k = KindNetworkPolicy, KindMeshNetworkPolicy, KindClusterMeshNetworkPolicy, KindClusterNetworkPolicy
	tests := []struct {
		name, kind, spec string
		want             string // in the problem
		closed           string // directions in which web is denied everything: "", "i", "e", "ie"
	}{
		{"no JSON", n, `{`, "spec is not readable", ""},
		{"no object", n, `"x"`, "spec is not readable", ""},
		{"nothing", n, ``, "spec is not readable", ""},
		{"unknown field", n, `{"podSelector":{},"ingress":[{}],"domainNames":["x"]}`, "domainNames", "i"},
		{"unknown field deep down", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{},"serviceAccounts":{}}]}]}`, "serviceAccounts", "i"},
		{"field in another case", n, `{"podSelector":{},"ingress":[{}],"PolicyTypes":["Egress"]}`, "PolicyTypes", "i"},
		{"field given twice", n, `{"podSelector":{},"ingress":[{}],"ingress":[{}]}`, "ingress", "i"},
		{"wrong type, subjects readable", n, `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":"all"}`, "spec is not readable", "i"},
		{"wrong type, both directions", n, `{"podSelector":{},"policyTypes":["Ingress","Egress"],"ingress":[{}],"egress":[{"ports":{}}]}`, "spec is not readable", "ie"},
		{"wrong type, types unreadable", n, `{"podSelector":{},"policyTypes":7,"ingress":[{}]}`, "spec is not readable", "ie"},
		{"wrong type, only egress", n, `{"podSelector":{},"policyTypes":["Egress"],"egress":7}`, "spec is not readable", "e"},
		{"subjects unreadable", n, `{"podSelector":7,"ingress":[{}]}`, "spec is not readable", ""},
		{"subjects' operator unknown", n, `{"podSelector":{"matchExpressions":[{"key":"app","operator":"in","values":["web"]}]}}`, "spec.podSelector", ""},
		{"policy type unknown", n, `{"podSelector":{},"policyTypes":["ingress"],"ingress":[{}]}`, "spec.policyTypes[0]", "ie"},
		{"peer of an unknown type", n, `{"podSelector":{},"ingress":[{"from":[{}]},{}]}`, "spec.ingress[0].from[0]", "i"},
		{"peer's operator unknown", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Is"}]}}]}]}`, "spec.ingress[0].from[0].podSelector", "i"},
		{"bad label value", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"a b"}}}]}]}`, "spec.ingress[0].from[0].podSelector", "i"},
		{"bad CIDR", n, `{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/33"}}]},{}]}`, "spec.egress[0].to[0].ipBlock.cidr", "e"},
		{"IPv4 in IPv6", n, `{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}]}]}`, "write it as IPv4", "i"},
		{"except outside", n, `{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/9"]}}]}]}`, "spec.ingress[0].from[0].ipBlock.except[0]", "i"},
		{"except is all", n, `{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.0.0.0/8"]}}]}]}`, "not a part of", "i"},
		{"block and selector", n, `{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8"},"podSelector":{}}]}]}`, "can't be combined", "i"},
		{"protocol unknown", n, `{"podSelector":{},"ingress":[{"ports":[{"protocol":"ICMP"}]}]}`, "spec.ingress[0].ports[0].protocol", "i"},
		{"port 0", n, `{"podSelector":{},"ingress":[{"ports":[{"port":0}]}]}`, "between 1 and 65535", "i"},
		{"port too high", n, `{"podSelector":{},"ingress":[{"ports":[{"port":65536}]}]}`, "between 1 and 65535", "i"},
		{"range backwards", n, `{"podSelector":{},"ingress":[{"ports":[{"port":80,"endPort":79}]}]}`, "endPort 79", "i"},
		{"range of a name", n, `{"podSelector":{},"ingress":[{"ports":[{"port":"http","endPort":90}]}]}`, "numeric port", "i"},
		{"range without start", n, `{"podSelector":{},"ingress":[{"ports":[{"endPort":90}]}]}`, "endPort needs port", "i"},

		{"mesh: no direction", m, `{"podSelector":{}}`, "needs ingress or egress", ""},
		{"mesh: mode unknown", m, `{"podSelector":{},"mode":"Enforced","ingress":{"allow":[{}]}}`, "spec.mode", "i"},
		{"mesh: default unknown", m, `{"podSelector":{},"ingress":{"defaultAction":"allow"}}`, "spec.ingress.defaultAction", "i"},
		{"mesh: broken allow closes even where the default allows", m, `{"podSelector":{},"ingress":{"defaultAction":"Allow","allow":[{"peers":[{}]}]}}`, "spec.ingress.allow[0].peers[0]", "i"},
		{"mesh: broken deny denies all", m, `{"podSelector":{},"egress":{"defaultAction":"Allow","deny":[{"ports":[{"protocol":"tcp","port":25}]}]}}`, "spec.egress.deny[0].ports[0].protocol", "e"},
		{"mesh: cidr and selector", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"cidr":"10.0.0.0/8","podSelector":{}}]}]}}`, "only one of", "i"},
		{"mesh: nodes and entities", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"nodeSelector":{},"entities":["World"]}]}]}}`, "only one of", "i"},
		{"mesh: service accounts of a range", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"cidr":"10.0.0.0/8","serviceAccounts":["a"]}]}]}}`, "only one of", "i"},
		{"mesh: entity unknown", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"entities":["World","Host"]}]}]}}`, `entities[1]: "Host"`, "i"},
		{"mesh: nodes' operator unknown", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"nodeSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}]}]}}`, "nodeSelector", "i"},
		{"mesh: services and pods", m, `{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"a"}],"podSelector":{}}]}]}}`, "only one of", "e"},
		{"mesh: a service without name", m, `{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"a"},{}]}]}]}}`, "services[1].name: is missing", "e"},
		{"cluster: a service without namespace", c, `{"podSelector":{},"egress":{"allow":[{"peers":[{"services":[{"name":"a"}]}]}]}}`, "services[0].namespace: is missing", "e"},
		{"mesh: except alone", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"except":["10.0.0.0/8"]}]}]}}`, "except needs cidr", "i"},
		{"mesh: port and name", m, `{"podSelector":{},"ingress":{"allow":[{"ports":[{"port":80,"name":"http"}]}]}}`, "not both", "i"},
		{"mesh: icmp, family unknown", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"ip4"}]}]}}`, `spec.ingress.allow[0].icmp[0].family: "ip4"`, "i"},
		{"mesh: icmp, name unknown", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":"Ping"}]}]}}`, `icmp[0].type: "Ping" is no name`, "i"},
		{"mesh: icmp, name of the other family", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"IPv6","type":"TimestampRequest"}]}]}}`, `"TimestampRequest" is no name`, "i"},
		{"mesh: icmp, number without family", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":8}]}]}}`, "icmp[0]: type 8 needs the family", "i"},
		{"mesh: icmp, number too high", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"IPv4","type":256}]}]}}`, "256 is not between 0 and 255", "i"},
		{"mesh: icmp, an error by name", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":"PacketTooBig"}]}]}}`, "PacketTooBig is an error message", "i"},
		{"mesh: icmp, an error by number", m, `{"podSelector":{},"egress":{"defaultAction":"Allow","deny":[{"icmp":[{"family":"IPv4","type":3}]}]}}`, "DestinationUnreachable is an error message", "e"},
		{"mesh: icmp, a code", m, `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":"EchoRequest","code":0}]}]}}`, "code", "i"},
		{"mesh: wrong type", m, `{"podSelector":{},"ingress":{},"egress":[]}`, "spec is not readable", "ie"},
		{"mesh: cluster selector unreadable", m, `{"podSelector":{},"clusterSelector":"prod","ingress":{}}`, "spec is not readable", ""},
		{"mesh: namespaceSelector is not of this kind", m, `{"podSelector":{},"namespaceSelector":{},"ingress":{"allow":[{}]}}`, "namespaceSelector", "i"},
		{"cluster: bad peer", c, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"clusterSelector":{"matchExpressions":[{"key":"env","operator":"=="}]}}]}]}}`, "clusterSelector", "i"},
		{"cluster: tier unknown", c, `{"tier":"Top","priority":1,"podSelector":{},"ingress":{"allow":[{}]}}`, "spec.tier", "i"},
		{"cluster: tier unreadable", c, `{"tier":1,"podSelector":{},"egress":{"allow":[{}]}}`, "spec is not readable", "e"},
		{"cluster: no priority", c, `{"tier":"Baseline","podSelector":{},"ingress":{"allow":[{}]}}`, "spec.priority: is needed", "i"},
		{"cluster: priority too high", c, `{"tier":"Admin","priority":1001,"podSelector":{},"ingress":{"allow":[{}]}}`, "between 0 and 1000", "i"},
		{"cluster: priority unreadable", c, `{"tier":"Admin","priority":"1","podSelector":{},"ingress":{"allow":[{}]}}`, "spec is not readable", "i"},
		{"cluster: priority alone", c, `{"priority":1,"podSelector":{},"ingress":{"allow":[{}]}}`, "needs a tier", "i"},
		{"cluster: pass without a tier", c, `{"podSelector":{},"ingress":{"allow":[{}],"pass":[{}]}}`, "spec.ingress.pass", "i"},
		{"mesh: pass", m, `{"podSelector":{},"ingress":{"allow":[{}],"pass":[{}]}}`, "spec.ingress.pass", "i"},
		{"mesh: tier", m, `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"allow":[{}]}}`, "tier", "i"},
		{"cluster: a pass that nobody can match", c, `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"pass":[{"peers":[{"podSelector":{"matchLabels":{"controller-uid":"1"}}}]}]}}`, "controller-uid", "i"},
		{"upstream: no tier", k, `{"priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Accept","from":[{"namespaces":{}}]}]}`, "spec.tier", "i"},
		{"upstream: no priority", k, `{"tier":"Admin","subject":{"namespaces":{}},"ingress":[{"action":"Accept","from":[{"namespaces":{}}]}]}`, "spec.priority", "i"},
		{"upstream: unknown field", k, `{"tier":"Baseline","priority":1,"subject":{"namespaces":{}},"mode":"Audit","egress":[{"action":"Pass","to":[{"namespaces":{}}]}]}`, "mode", "e"},
		{"upstream: wrong type", k, `{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":{},"egress":[]}`, "spec is not readable", "ie"},
		{"upstream: tier unreadable", k, `{"tier":[],"priority":1,"subject":{"namespaces":{}},"ingress":[]}`, "spec is not readable", "i"},
		{"upstream: subject of a later version", k, `{"tier":"Admin","priority":1,"subject":{"nodes":{}},"ingress":[]}`, "spec.subject", ""},
		{"upstream: two subjects", k, `{"tier":"Admin","priority":1,"subject":{"namespaces":{},"pods":{"namespaceSelector":{},"podSelector":{}}},"ingress":[]}`, "spec.subject", ""},
		{"upstream: subject unreadable", k, `{"tier":"Admin","priority":1,"subject":7,"ingress":[]}`, "spec is not readable", ""},
		{"upstream: subject's operator unknown", k, `{"tier":"Admin","priority":1,"subject":{"namespaces":{"matchExpressions":[{"key":"a","operator":"Is"}]}},"ingress":[]}`, "spec.subject.namespaces", ""},
		{"kind unknown", "GlobalNetworkPolicy", `{"podSelector":{}}`, "is not known", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &record.Policy{PolicyKind: tt.kind, Namespace: "shop", Name: "p", Spec: []byte(tt.spec)}
			if tt.kind == c || tt.kind == k {
				p.Namespace = ""
			}
			r := NewReference(smallWorld(p))
			named := slices.ContainsFunc(r.Problems, func(got Problem) bool { return strings.Contains(got.Message, tt.want) })
			if len(r.Problems) == 0 || r.Problems[0].PolicyKey != Key(p) || !named {
				t.Errorf("problems are %+v, want one that names %q", r.Problems, tt.want)
			}
			for dir, letter := range map[Direction]string{Ingress: "i", Egress: "e"} {
				d := r.Evaluate(tcp80(web, db, dir))
				if want := strings.Contains(tt.closed, letter); want == d.Passes() {
					t.Errorf("%s: passes=%t, want closed=%t", dir, d.Passes(), want)
				}
			}
		})
	}
}

// A policy in Audit mode never denies, not even when it is broken.
func TestBrokenAuditPolicyOnlyReports(t *testing.T) {
	for _, spec := range []string{
		`{"podSelector":{},"mode":"Audit","ingress":{"deny":[{"peers":[{}]}]}}`,
		`{"podSelector":{},"mode":"Audit","ingress":[]}`,
		`{"podSelector":{},"mode":"Audit","tier":"Admin","priority":-1,"ingress":{"allow":[{}]}}`,
		`{"podSelector":{},"mode":"Audit","tier":"Baseline","priority":1,"ingress":[]}`,
	} {
		p := &record.Policy{PolicyKind: KindMeshNetworkPolicy, Namespace: "shop", Name: "p", Spec: []byte(spec)}
		if strings.Contains(spec, "tier") {
			p.PolicyKind, p.Namespace = KindClusterMeshNetworkPolicy, ""
		}
		r := NewReference(smallWorld(p))
		if d := r.Evaluate(tcp80(web, db, Ingress)); d.Verdict != AuditDeny || len(r.Problems) == 0 {
			t.Errorf("%s: %v, problems %v", spec, d.Verdict, r.Problems)
		}
	}
}

// A subject without labels can't be matched with policies: it stays closed until it can.
func TestSubjectWithoutLabelsIsClosed(t *testing.T) {
	w := smallWorld(&record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: "p", Spec: []byte(`{"podSelector":{"matchLabels":{"app":"db"}}}`)})
	const unknown = 1<<16 | 999
	e, k := NewEngine(Config{Cluster: w.Cluster, Limits: roomy}), newKernel()
	load(e, w, map[uint32]bool{web: true, unknown: true, 0: true, 1: true})
	k.apply(e.Step())
	if !k.decide(tcp80(web, db, Ingress)).Passes() {
		t.Error("a known pod that no policy selects is closed")
	}
	for _, dir := range []Direction{Ingress, Egress} {
		for _, d := range []Decision{k.decide(tcp80(unknown, web, dir)).Decision, NewReference(w).Evaluate(tcp80(unknown, web, dir))} {
			if d.Passes() || k.rules[d.Rule].Kind != RuleUnknownSubject {
				t.Errorf("%s of a pod without labels: %+v", dir, d)
			}
		}
	}
	if len(k.subjects) != 4 {
		t.Errorf("subjects: %v", k.subjects)
	}
	e.SetIdentity(unknown, pod("east", "shop", "app", "cache"))
	k.apply(e.Step())
	if !k.decide(tcp80(unknown, web, Ingress)).Passes() {
		t.Error("the pod is closed when its labels are known")
	}
}

// Clusters without a record (yet) are not believed to be what an allow rule asks for, but what a deny rule does.
func TestUnknownClusters(t *testing.T) {
	spec := `{"podSelector":{},"ingress":{"allow":[{"peers":[{"clusterSelector":{"matchExpressions":[{"key":"env","operator":"NotIn","values":["test"]}]}}]}]},
		"egress":{"defaultAction":"Allow","deny":[{"peers":[{"clusterSelector":{"matchLabels":{"env":"test"}}}]}]}}`
	in := smallWorld(&record.Policy{PolicyKind: KindMeshNetworkPolicy, Namespace: "shop", Name: "p", Spec: []byte(spec)})
	known := NewReference(in)
	if !known.Evaluate(tcp80(web, farWeb, Ingress)).Passes() || !known.Evaluate(tcp80(web, farWeb, Egress)).Passes() {
		t.Error("a known cluster that is not test is denied")
	}
	delete(in.Clusters, "west")
	unknown := NewReference(in)
	if unknown.Evaluate(tcp80(web, farWeb, Ingress)).Passes() || unknown.Evaluate(tcp80(web, farWeb, Egress)).Passes() {
		t.Error("a cluster that may be test passes")
	}
}

func FuzzSpec(f *testing.F) {
	f.Add(uint8(0), []byte(`{"podSelector":{},"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"ports":[{"port":"http"},{"port":80,"endPort":90}]}]}`))
	f.Add(uint8(0), []byte(`{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["web"]}]},"policyTypes":["Egress"],"egress":[{"to":[{"namespaceSelector":{}}]}]}`))
	f.Add(uint8(1), []byte(`{"podSelector":{},"mode":"Audit","ingress":{"allow":[{"peers":[{"clusterSelector":{}}]}],"deny":[{"ports":[{"name":"http"}]}],"defaultAction":"Allow"}}`))
	f.Add(uint8(2), []byte(`{"podSelector":{},"namespaceSelector":{},"clusterSelector":{"matchLabels":{"env":"prod"}},"egress":{"allow":[{"peers":[{"cidr":"::/0"}]}]}}`))
	f.Add(uint8(2), []byte(`{"podSelector":null,"ingress":{"allow":null}}`))
	f.Add(uint8(2), []byte(`{"tier":"Baseline","priority":7,"podSelector":{},"ingress":{"pass":[{}],"deny":[{"ports":[{"name":"http"}]}]}}`))
	f.Add(uint8(3), []byte(`{"tier":"Admin","priority":1,"subject":{"pods":{"namespaceSelector":{},"podSelector":{}}},"egress":[{"action":"Pass","to":[{"networks":["10.0.0.0/8"]}],"protocols":[{"destinationNamedPort":"http"},{"tcp":{"destinationPort":{"range":{"start":1,"end":2}}}}]}]}`))
	f.Add(uint8(3), []byte(`{"tier":"Baseline","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{}]},{"name":"x"}],"egress":[null]}`))
	f.Add(uint8(1), []byte(`{"podSelector":{"matchLabels":{"pod-template-hash":"1"}},"ingress":{"allow":[{}],"deny":[{"peers":[{"podSelector":{"matchExpressions":[{"key":"controller-uid","operator":"Exists"}]}}]}]}}`))
	f.Add(uint8(2), []byte(`{"tier":"Admin","priority":7,"podSelector":{"matchLabels":{"pod-template-hash":"1"}},"ingress":{"allow":[{}],"pass":[{"peers":[{"podSelector":{"matchLabels":{"controller-uid":"1"}}}]}]}}`))
	f.Fuzz(func(t *testing.T, kind uint8, spec []byte) {
		p := &record.Policy{Namespace: "shop", Name: "p", Spec: spec}
		p.PolicyKind = allKinds[kind%4]
		if kind%4 >= 2 {
			p.Namespace = ""
		}
		m := Parse(p)
		_, k := build(smallWorld(p))
		for id, lines := range k.groups {
			for _, l := range lines {
				if (len(m.problems) > 0 || m.widened) && (l.Verdict == Allow || l.Verdict == Pass) {
					t.Fatalf("a policy with problems %v allows %+v in group %d", m.Problems(), l, id)
				}
			}
		}
		for dir, d := range m.dirs {
			if len(m.problems) > 0 && d != nil && !d.isolates {
				t.Fatalf("a policy with problems %v does not isolate %s", m.problems, Direction(dir))
			}
		}
		if m.nobody && (len(m.problems) == 0 || m.dirs != [2]*direction{}) {
			t.Fatalf("a policy without subjects has %v and problems %v", m.dirs, m.problems)
		}
	})
}
