// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/internal/anymesh"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"shop/web": "shop/web", "east/shop/web:80": "east/shop/web:80/TCP", "svc/shop/api:80/udp": "svc/shop/api:80/UDP",
		"svc/east/shop/api": "svc/east/shop/api", "node/n1:22": "node/n1:22/TCP", "node/east/n1:icmp": "node/east/n1:icmp",
		"10.0.0.1": "10.0.0.1", "10.0.0.1:53/UDP": "10.0.0.1:53/UDP", "fd00::1": "fd00::1", "[fd00::1]:80": "[fd00::1]:80/TCP",
		"[fd00::1]:icmp": "[fd00::1]:icmp", "shop/web:EchoRequest/icmp": "shop/web:icmp", "shop/web:TimestampRequest/ICMP": "shop/web:TimestampRequest/ICMP",
		"[fd00::1]:200/ICMP": "[fd00::1]:200/ICMP", "shop/web:TimeExceeded/ICMP": "error", "shop/web:3/ICMP": "error", "shop/web:/ICMP": "error",
		"shop/web:256/ICMP": "error", "shop/web:Ping/ICMP": "error", "::ffff:10.0.0.1": "10.0.0.1",
		"web": "error", "": "error", "shop/web:0": "error", "shop/web:80/GRE": "error", "[fd00::1]80": "error", "[10.0.0.1]:80": "error",
		"a/b/c/d": "error", "Shop/web": "error", "224.0.0.1:5": "error", "fe80::1%eth0": "error", "shop/web:http": "error", "node/a/b/c": "error",
	} {
		got, err := ParseTarget(text)
		if err != nil {
			if want != "error" {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if got.String() != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"east/shop/web:80/TCP", "[fd00::1]:icmp", "shop/web:13/ICMP", "svc/a/b", "node/n:1/SCTP", "10.0.0.1:53/UDP"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseTarget(text)
		if err != nil {
			return
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is read as %+v, which is written %s and read as %+v (%v)", text, got, got, again, err)
		}
	})
}

// A policy that names nodes is held against the nodes of its cluster.
func TestNodesArePeers(t *testing.T) {
	m := small(t)
	rec := &record.Policy{PolicyKind: policy.KindClusterNetworkPolicy, Name: "nodes", Spec: []byte(`{"tier":"Admin","priority":1,"subject":{"namespaces":{}},
		"egress":[{"action":"Deny","to":[{"nodes":{"matchLabels":{"role":"infra"}}}]}]}`)}
	east := m.Clusters["east"]
	east.Policies = append(east.Policies, &world.Policy{Record: rec, Model: policy.Parse(rec)})
	east.Nodes[0].Enforces[policy.Key(rec)] = world.Enforced{Content: rec.Content()}
	east.Nodes = append(east.Nodes, &world.Node{Cluster: "east", Name: "n2", Labels: map[string]string{"role": "infra"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}},
		&world.Node{Cluster: "east", Name: "n3", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}})
	east.Nodes[0].Labels = map[string]string{"role": "infra"} // web's own
	for to, want := range map[string]Verdict{"node/east/n1:22": Denied, "node/east/n2:22": Denied, "node/east/n3:22": Allowed} {
		from, err := ParseEnd("east/shop/web")
		if err != nil {
			t.Fatal(err)
		}
		target, err := ParseTarget(to)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Explain(m, from, target)
		if err != nil || r.Verdict != want {
			t.Errorf("%s: %s, %v, want %s: %+v", to, r.Verdict, err, want, r)
		}
	}
}

// small is a mesh of two live clusters: web of east may call api's port 8080 of both, nothing else comes in.
func small(t *testing.T) *world.Mesh {
	t.Helper()
	m := &world.Mesh{Clusters: map[string]*world.Cluster{}}
	rec := &record.Policy{
		PolicyKind: policy.KindMeshNetworkPolicy, Namespace: "shop", Name: "api", Provenance: record.Provenance{Path: "api.yaml", Revision: "main@sha1:1"},
		Spec: []byte(`{"podSelector":{"matchLabels":{"app":"api"}},"ingress":{"allow":[{"peers":[{"clusterSelector":{},"podSelector":{"matchLabels":{"app":"web"}}}],"ports":[{"port":8080}]}]}}`),
	}
	addr := netip.MustParseAddr
	for i, name := range []string{"east", "west"} {
		other := []string{"west", "east"}[i]
		base := "10." + string(rune('1'+i)) + ".0."
		c := &world.Cluster{
			Name: name, ID: uint8(i + 1), Context: name, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(base + "0/16")},
			Namespaces: map[string]map[string]string{"shop": nil}, Others: map[string]world.Other{other: {}},
			Nodes: []*world.Node{{Cluster: name, Name: "n1", Addresses: []netip.Addr{addr("192.0.2." + string(rune('1'+i)))}, Reported: time.Unix(100, 0),
				Enforces: map[string]world.Enforced{policy.Key(rec): {Revision: "main@sha1:1", Content: rec.Content()}}}},
			Policies:   []*world.Policy{{Record: rec, Model: policy.Parse(rec)}},
			Identities: map[uint32]map[string]string{},
		}
		for n, app := range []string{"web", "api"} {
			p := &world.Pod{
				Cluster: name, Namespace: "shop", Name: app, Node: "n1", Labels: map[string]string{"app": app},
				Addresses: []netip.Addr{addr(base + string(rune('1'+n)))}, Ports: []world.Port{{Name: "http", Proto: record.TCP, Number: 8080}},
			}
			c.Pods = append(c.Pods, p)
			c.Identities[identity.Of(c.ID, uint16(300+n))] = c.PodLabels(p)
		}
		c.Pods = append(c.Pods, &world.Pod{Cluster: name, Namespace: "shop", Name: "agent", Node: "n1", HostNetwork: true})
		c.Services = []service.Definition{{
			Cluster: name,
			Service: &record.Service{Namespace: "shop", Name: "api", Global: true, Shared: true, ClusterIPs: []netip.Addr{addr("10.96.0.9")}, Ports: []record.Port{{Protocol: record.TCP, Number: 80}}},
			Slices:  []*record.Slice{{Ports: []record.Port{{Protocol: record.TCP, Number: 8080}}, Backends: []record.Backend{{Addr: addr(base + "2"), Ready: true, Serving: true}}}},
		}}
		m.Clusters[name] = c
	}
	if err := m.Number(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		change   func(*world.Mesh)
		want     Verdict
		says     string // of egress, ingress and what is missing
	}{
		{"east/shop/web", "west/shop/api:8080", nil, Allowed, "api.yaml"},
		{"east/shop/web", "west/shop/api", nil, Allowed, "ingress allow[0]"},
		{"east/shop/web", "west/shop/api:81", nil, Denied, "ingress isolate"},
		{"west/shop/api", "east/shop/api:8080", nil, Denied, "ingress isolate"},
		{"east/shop/api", "east/shop/api:8080", nil, Allowed, "self"},
		{"east/shop/web", "svc/shop/api:80", nil, Allowed, "ingress allow[0]"},
		{"east/shop/web", "10.96.0.9:80", nil, Allowed, "ingress allow[0]"},
		{"east/shop/web", "svc/shop/api", func(m *world.Mesh) { m.Clusters["west"].Pods[1].Labels["app"] = "other"; delete(m.Clusters, "west") }, Unknown, "may have backends"},
		{"node/east/n1", "east/shop/api:22", nil, Allowed, "own-node"},
		{"east/shop/web", "node/east/n1:10250", nil, Allowed, "own-node"},
		{"east/shop/agent", "east/shop/api:22", nil, Allowed, "own-node"},
		{"node/east/n1", "west/shop/api:8080", nil, Denied, "ingress isolate"},
		{"198.51.100.1", "east/shop/api:8080", nil, Denied, "the world"},
		{"10.1.0.77", "east/shop/api:8080", nil, Denied, "nobody vouches for"},
		{"10.2.0.77", "east/shop/web:8080", nil, Denied, "unknown-address"},
		{"east/shop/web", "192.0.2.2:22", nil, Allowed, "another node"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) { m.Clusters["east"].Nodes[0].Reported = time.Time{} }, Unknown, "no agent has reported"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) { clear(m.Clusters["east"].Nodes[0].Enforces) }, Unknown, "not in force yet"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) {
			m.Clusters["east"].Nodes[0].Enforces["MeshNetworkPolicy/shop/api"] = world.Enforced{Content: "other"}
		}, Unknown, "another state of it is in force"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) {
			m.Clusters["east"].Nodes[0].Enforces["NetworkPolicy/shop/old"] = world.Enforced{}
		}, Unknown, "gone from the API"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) {
			m.Clusters["east"].Nodes[0].Enforces["NetworkPolicy/else/old"] = world.Enforced{}
		}, Allowed, ""},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) { m.Clusters["east"].Missing = []string{"read Pods: forbidden"} }, Unknown, "forbidden"},
		{"east/shop/web", "east/shop/api:8080", func(m *world.Mesh) { m.Clusters["east"].Pods[0].Identity = 0 }, Unknown, "no identity yet"},
		{"east/shop/web", "west/shop/api:8080", func(m *world.Mesh) { m.Clusters["west"].Others["east"] = world.Other{Unused: "not accepted"} }, Unknown, "not accepted"},
	} {
		t.Run(tt.from+" "+tt.to, func(t *testing.T) {
			m := small(t)
			if tt.change != nil {
				tt.change(m)
			}
			from, err := ParseEnd(tt.from)
			if err != nil {
				t.Fatal(err)
			}
			to, err := ParseTarget(tt.to)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Explain(m, from, to)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(r.Missing, " ")
			for _, c := range r.Connections {
				for _, s := range []Side{c.Egress, c.Ingress} {
					text += " " + string(s.Exempt) + " " + s.PeerSeenAs
					if s.Rule != nil {
						text += " " + s.Rule.Rule + " " + s.Rule.File
					}
				}
			}
			if r.Verdict != tt.want || !strings.Contains(text, tt.says) {
				t.Errorf("%s: %s; want %s with %q", r.Verdict, text, tt.want, tt.says)
			}
			if r.Verdict == Unknown && r.ExitCode() != 2 {
				t.Errorf("exit code %d", r.ExitCode())
			}
		})
	}
}

// Each side says which tier decides, and what left the connection to it.
func TestTiersAreTold(t *testing.T) {
	const subject = `"subject":{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"api"}}}}`
	rule := func(action string) string {
		return `[{"action":"` + action + `","from":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web"}}}}]}]`
	}
	for _, tt := range []struct {
		from, tier, action string
		namespace          bool // with the namespace's policy, which allows web's connections to port 8080
		want               Verdict
		by, passed, why    string
	}{
		{"east/shop/web", "Admin", "Deny", true, Denied, "ClusterNetworkPolicy top ingress deny[0] Admin", "", ""},
		{"east/shop/web", "Admin", "Pass", true, Allowed, "MeshNetworkPolicy shop/api ingress allow[0] ", "ClusterNetworkPolicy top ingress pass[0] Admin", ""},
		{"east/shop/web", "Admin", "Pass", false, Allowed, "", "ClusterNetworkPolicy top ingress pass[0] Admin", "no policy behind the Admin tier has a say for ingress"},
		{"10.1.0.77", "Admin", "Pass", false, Denied, "ClusterNetworkPolicy top ingress pass[0] Admin", "", "nobody knows whether the rule means the other side"},
		{"10.1.0.77", "Baseline", "Pass", false, Allowed, "", "", "no policy has a say for ingress"},
		{"east/shop/web", "Baseline", "Deny", true, Allowed, "MeshNetworkPolicy shop/api ingress allow[0] ", "", ""},
		{"east/shop/web", "Baseline", "Deny", false, Denied, "ClusterNetworkPolicy top ingress deny[0] Baseline", "", "Baseline tier, priority 3"},
		{"10.1.0.77", "Baseline", "Deny", false, Denied, "ClusterNetworkPolicy top ingress deny[0] Baseline", "", ""},
	} {
		t.Run(tt.from+" "+tt.tier+" "+tt.action, func(t *testing.T) {
			m := small(t)
			c := m.Clusters["east"]
			if !tt.namespace {
				c.Policies = nil
				clear(c.Nodes[0].Enforces)
			}
			rec := &record.Policy{PolicyKind: policy.KindClusterNetworkPolicy, Name: "top", Spec: []byte(`{"tier":"` + tt.tier + `","priority":3,` + subject + `,"ingress":` + rule(tt.action) + `}`)}
			c.Policies = append(c.Policies, &world.Policy{Record: rec, Model: policy.Parse(rec)})
			c.Nodes[0].Enforces[policy.Key(rec)] = world.Enforced{Content: rec.Content()}
			from, _ := ParseEnd(tt.from)
			to, _ := ParseTarget("east/shop/api:8080")
			r, err := Explain(m, from, to)
			if err != nil || len(r.Connections) != 1 {
				t.Fatalf("%+v, %v", r, err)
			}
			name := func(r *world.Rule) string {
				if r == nil {
					return ""
				}
				return r.Policy + " " + r.Rule + " " + r.Tier
			}
			s := r.Connections[0].Ingress
			if r.Verdict != tt.want || name(s.Rule) != tt.by || name(s.Passed) != tt.passed || !strings.Contains(s.Why, tt.why) {
				t.Errorf("%s by %q, passed by %q: %s (missing %v)", r.Verdict, name(s.Rule), name(s.Passed), s.Why, r.Missing)
			}
		})
	}
}

func TestWhatIsNotThereIsAnErrorWithANextStep(t *testing.T) {
	m := small(t)
	for pair, want := range map[[2]string]string{
		{"shop/web", "east/shop/api:80"}:          "clusters east and west have a pod of this name",
		{"east/shop/none", "east/shop/api:80"}:    "no pod of this name",
		{"north/shop/web", "east/shop/api:80"}:    "cluster north is not known",
		{"east/shop/web", "svc/shop/api:99"}:      "has no port 99/TCP",
		{"east/shop/web", "svc/shop/none:80"}:     "no service shop/none",
		{"east/shop/web", "198.51.100.1"}:         "no port is given",
		{"east/shop/web", "svc/west/shop/api:80"}: "leave the cluster's name out",
	} {
		from, _ := ParseEnd(pair[0])
		to, _ := ParseTarget(pair[1])
		if _, err := Explain(m, from, to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", pair, err, want)
		}
	}
}

// Whatever the policies, each side says what the engine decides.
func TestSidesSayWhatTheEngineDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anymesh.Draw(t)
		pod := func(what string) *world.Pod {
			c := m.Clusters[rapid.SampledFrom(m.Names()).Draw(t, what+" cluster")]
			return rapid.SampledFrom(c.Pods).Draw(t, what)
		}
		from, to := pod("from"), pod("to")
		proto := rapid.SampledFrom([]uint8{1, 6, 17, 132}).Draw(t, "proto")
		port, typ := uint16(0), ""
		if proto != icmp.V4 {
			port = rapid.SampledFrom([]uint16{79, 80, 81, 8080, 9000}).Draw(t, "port")
		} else {
			typ = rapid.SampledFrom([]string{"EchoRequest", "13", "200"}).Draw(t, "type")
		}
		end := func(p *world.Pod) End {
			return End{Kind: KindPod, Cluster: p.Cluster, Namespace: p.Namespace, Name: p.Name}
		}
		r, err := Explain(m, end(from), Target{End: end(to), Proto: proto, Port: port, ICMP: typ})
		if n, err := icmp.Parse(icmp.V4, typ); err == nil {
			port = icmp.Port(n)
		}
		if err != nil || len(r.Connections) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		c := r.Connections[0]
		if from == to {
			if r.Verdict != Allowed {
				t.Fatalf("a pod can't reach itself: %+v", r)
			}
			return
		}
		egress := policy.NewReference(m.World(from.Cluster)).Evaluate(policy.Connection{Subject: from.Identity, Peer: to.Identity, Addr: to.Addresses[0], Dir: policy.Egress, Proto: proto, Port: port})
		ingress := policy.NewReference(m.World(to.Cluster)).Evaluate(policy.Connection{Subject: to.Identity, Peer: from.Identity, Addr: from.Addresses[0], Dir: policy.Ingress, Proto: proto, Port: port})
		if (c.Egress.Verdict != Denied) != egress.Passes() || (c.Ingress.Verdict != Denied) != ingress.Passes() {
			t.Fatalf("said are %s and %s, decided %s and %s", c.Egress.Verdict, c.Ingress.Verdict, egress.Verdict, ingress.Verdict)
		}
		for _, s := range []Side{c.Egress, c.Ingress} {
			if s.Rule != nil && s.Passed != nil && s.Rule.Tier == "Admin" {
				t.Fatalf("passed to the next tier by %+v, and decided by %+v", s.Passed, s.Rule)
			}
		}
		if (c.Egress.Verdict == Audited) != (egress.Verdict == policy.AuditDeny) || (r.Verdict != Denied) != (egress.Passes() && ingress.Passes()) {
			t.Fatalf("%s for %s and %s", r.Verdict, egress.Verdict, ingress.Verdict)
		}
	})
}
