// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/internal/anymesh"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func meshOf(specs ...string) *world.Mesh {
	c := &world.Cluster{Name: "east", ID: 1, Namespaces: map[string]map[string]string{"shop": nil}}
	for i, spec := range specs {
		kind, spec, _ := strings.Cut(spec, " ")
		rec := &record.Policy{PolicyKind: kind, Namespace: "shop", Name: fmt.Sprintf("p%d", i), Spec: []byte(spec)}
		if kind == policy.KindClusterMeshNetworkPolicy || kind == policy.KindClusterNetworkPolicy {
			rec.Namespace = ""
		}
		c.Policies = append(c.Policies, &world.Policy{Record: rec, Model: policy.Parse(rec)})
	}
	return &world.Mesh{Clusters: map[string]*world.Cluster{"east": c}}
}

func codes(r Report) string {
	var out []string
	for _, f := range r.Findings {
		_, name, _ := strings.Cut(f.Policy, " ")
		out = append(out, strings.TrimSpace(string(f.Code)+" "+strings.TrimPrefix(name, "shop/")+" "+f.Rule))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestFindings(t *testing.T) {
	const n, m, c = policy.KindNetworkPolicy + " ", policy.KindMeshNetworkPolicy + " ", policy.KindClusterMeshNetworkPolicy + " "
	for _, tt := range []struct {
		name  string
		specs []string
		want  string
	}{
		{"all is well", []string{n + `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}}]},{"ports":[{"port":80}]}]}`}, ""},
		{"twice the same", []string{n + `{"podSelector":{},"ingress":[{"ports":[{"port":80}]},{"ports":[{"port":80}]}]}`}, "rule-redundant p0 ingress allow[1]"},
		{"another policy covers it", []string{
			n + `{"podSelector":{"matchLabels":{"app":"db"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"api"}}}],"ports":[{"port":80}]}]}`,
			m + `{"podSelector":{},"ingress":{"allow":[{"ports":[{"port":79,"endPort":81}]}]}}`,
		}, "rule-redundant p0 ingress allow[0]"},
		{"two rules together cover it", []string{m + `{"podSelector":{},"ingress":{"allow":[{"ports":[{"port":10,"endPort":20}]},{"ports":[{"port":21,"endPort":30}]},{"ports":[{"port":15,"endPort":25}]}]}}`},
			"rule-redundant p0 ingress allow[2]"},
		{"not covered where the other wants a label to be absent", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"peers":[{"podSelector":{"matchLabels":{"app":"x"}}}]},{"peers":[{"podSelector":{"matchExpressions":[{"key":"old","operator":"DoesNotExist"}]}}]}]}}`,
		}, ""},
		{"a deny stands before it", []string{
			m + `{"podSelector":{},"egress":{"deny":[{"peers":[{"cidr":"10.0.0.0/8"}]}],"allow":[{"peers":[{"cidr":"10.1.0.0/16"}]},{"peers":[{"cidr":"0.0.0.0/0"}]}]}}`,
		}, "rule-shadowed p0 egress allow[0]"},
		{"denied by default too", []string{m + `{"podSelector":{},"ingress":{"deny":[{"peers":[{"podSelector":{"matchLabels":{"app":"x"}}}]}]}}`}, "deny-by-default-too p0 ingress deny[0]"},
		{"a deny that something else would allow", []string{
			m + `{"podSelector":{},"ingress":{"deny":[{"peers":[{"podSelector":{"matchLabels":{"app":"x"}}}]}]}}`,
			c + `{"podSelector":{},"ingress":{"allow":[{"peers":[{"podSelector":{"matchLabels":{"tier":"front"}}}]}]}}`,
		}, ""},
		{"nobody can be meant", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"peers":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"a","operator":"DoesNotExist"}]}},{"cidr":"10.0.0.0/8"}]}]}}`,
		}, "peer-never-matches p0 ingress allow[0], peers[0]"},
		{"a rule that nobody can meet", []string{m + `{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["x"]},{"key":"a","operator":"NotIn","values":["x"]}]},"ingress":{"allow":[{}]}}`}, "rule-never-matches p0 ingress allow[0]"},
		{"a label that is left out", []string{n + `{"podSelector":{"matchLabels":{"pod-template-hash":"1"}},"ingress":[]}`}, "label-left-out p0"},
		{"not valid", []string{m + `{"podSelector":{},"ingres":{}}`}, "policy-invalid p0; policy-invalid p0"},
		{"in Audit mode", []string{m + `{"podSelector":{},"mode":"Audit","ingress":{"allow":[{},{}]}}`}, ""},
		{"a name may have the number that a deny closes", []string{
			n + `{"podSelector":{},"policyTypes":["Egress"],"egress":[{"ports":[{"port":"http"}]}]}`,
			m + `{"podSelector":{},"egress":{"deny":[{"peers":[{"cidr":"0.0.0.0/0"}],"ports":[{"port":80}]}]}}`,
		}, ""},
		{"a number may have the name that an allow opens", []string{
			m + `{"podSelector":{},"ingress":{"deny":[{"ports":[{"name":"http"}]}],"allow":[{"ports":[{"port":80}]}]}}`,
		}, ""},
		{"a name is open with all numbers", []string{
			n + `{"podSelector":{},"ingress":[{"ports":[{"port":"http"}]},{"ports":[{"port":1,"endPort":65535}]}]}`,
		}, "rule-redundant p0 ingress allow[0]"},
		{"a name that covers a number", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":"EchoRequest"}]},{"icmp":[{"family":"IPv4","type":8}]}]}}`,
		}, "rule-redundant p0 ingress allow[1]"},
		{"types that don't cover each other", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"IPv4","type":8}]},{"icmp":[{"family":"IPv6","type":8}, {"family":"IPv4","type":0}]},{"ports":[{"port":9}]}]}}`,
		}, "policy-invalid p0"},
		{"types of all kinds", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"IPv4","type":8}]},{"icmp":[{"type":"EchoReply"}]},{"ports":[{"port":9}]},{"icmp":[{"family":"IPv6","type":255}]}]}}`,
		}, ""},
		{"every type", []string{
			m + `{"podSelector":{},"ingress":{"allow":[{"icmp":[{"family":"IPv6","type":255},{"type":"Redirect"}]},{"icmp":[{}]}]}}`,
		}, "rule-redundant p0 ingress allow[0]"},
		{"a deny of a family stands before a type", []string{
			m + `{"podSelector":{},"ingress":{"deny":[{"icmp":[{"family":"IPv4"}]}],"allow":[{"icmp":[{"type":"TimestampRequest"}]},{}]}}`,
		}, "rule-shadowed p0 ingress allow[0]"},
		{"addresses of pods in the middle of a range", []string{
			m + `{"podSelector":{},"ingress":{"defaultAction":"Allow","deny":[{"peers":[{"cidr":"10.0.0.0/8","except":["10.0.0.0/24"]}]}],"allow":[{"peers":[{"podSelector":{}}]}]}}`,
		}, "rule-redundant p0 ingress allow[0]"},
		{"the last egress rule of a NetworkPolicy", []string{n + `{"podSelector":{},"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}]}]}`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := meshOf(tt.specs...)
			if err := m.Number(); err != nil {
				t.Fatal(err)
			}
			if got := codes(Run(m)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestFindingsInTiers(t *testing.T) {
	const n, c, u = policy.KindNetworkPolicy + " ", policy.KindClusterMeshNetworkPolicy + " ", policy.KindClusterNetworkPolicy + " "
	const all = `"subject":{"namespaces":{}}`
	from := func(action string) string { return `{"action":"` + action + `","from":[{"namespaces":{}}]}` }
	upstream := func(tier string, priority int, rules ...string) string {
		return u + fmt.Sprintf(`{"tier":%q,"priority":%d,%s,"ingress":[%s]}`, tier, priority, all, strings.Join(rules, ","))
	}
	web := `{"action":"Deny","from":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web"}}}}]}`
	for _, tt := range []struct {
		name  string
		specs []string
		want  string
	}{
		{"Admin denies what a namespace allows", []string{
			c + `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","deny":[{}]}}`,
			n + `{"podSelector":{},"ingress":[{"ports":[{"port":80}]}]}`,
		}, "rule-shadowed p1 ingress allow[0]"},
		{"an earlier priority", []string{upstream("Admin", 1, from("Accept")), upstream("Admin", 2, web)}, "rule-only-for-unknown p1 ingress deny[0]"},
		{"an earlier priority, for everybody", []string{
			c + `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","allow":[{"ports":[{"port":80}]}]}}`,
			c + `{"tier":"Admin","priority":2,"podSelector":{},"ingress":{"defaultAction":"Allow","deny":[{"ports":[{"port":80}]}]}}`,
		}, "rule-shadowed p1 ingress deny[0]"},
		{"a pass skips the rest of Admin", []string{upstream("Admin", 1, from("Pass"), from("Accept"))}, "rule-shadowed p0 ingress allow[1]"},
		{"a pass behind a deny", []string{upstream("Admin", 1, from("Deny"), from("Pass"))}, "rule-shadowed p0 ingress pass[1]"},
		{"a pass with a say", []string{upstream("Admin", 1, strings.Replace(web, "Deny", "Pass", 1), from("Deny"))}, ""},
		{"Admin stands guard", []string{upstream("Admin", 1, from("Accept")), n + `{"podSelector":{},"ingress":[{}]}`}, ""},
		{"nothing is behind a pass of Baseline", []string{upstream("Baseline", 1, web, from("Pass"))}, "rule-redundant p0 ingress pass[1]"},
		{"three labels, one a tier", []string{
			upstream("Admin", 1, strings.Replace(strings.Replace(web, "Deny", "Pass", 1), `"app":"web"`, `"x":"1"`, 1), strings.Replace(web, `"app":"web"`, `"y":"1"`, 1)),
			n + `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchLabels":{"z":"1"}}}]}]}`,
		}, ""},
		{"equal priorities", []string{upstream("Admin", 1, web), c + `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","allow":[{"peers":[{"podSelector":{"matchLabels":{"tier":"front"}}}]}]}}`},
			"equal-priority p1"},
		{"equal priorities, the same action", []string{upstream("Admin", 1, web), upstream("Admin", 1, strings.Replace(web, "web", "api", 1))}, ""},
		{"equal priorities, different tiers", []string{upstream("Admin", 1, web), upstream("Baseline", 1, strings.Replace(web, "Deny", "Accept", 1), from("Deny"))}, "rule-shadowed p1 ingress allow[0]"},
		{"equal priorities, different pods", []string{
			c + `{"tier":"Admin","priority":1,"podSelector":{"matchLabels":{"app":"a"}},"ingress":{}}`,
			c + `{"tier":"Admin","priority":1,"podSelector":{"matchLabels":{"app":"b"}},"ingress":{"defaultAction":"Allow","pass":[{}]}}`,
		}, ""},
		{"one name of a port, of pods that need not be the same", []string{u + `{"tier":"Admin","priority":1,` + all + `,"egress":[
			{"action":"Accept","to":[{"namespaces":{}}],"protocols":[{"destinationNamedPort":"http"}]},
			{"action":"Deny","to":[{"namespaces":{"matchLabels":{"team":"x"}}}],"protocols":[{"destinationNamedPort":"http"}]},
			{"action":"Deny","to":[{"namespaces":{"matchLabels":{"team":"y"}}}],"protocols":[{"destinationNamedPort":"http"}]}]}`},
			"rule-only-for-unknown p0 egress deny[1]; rule-only-for-unknown p0 egress deny[2]"},
		{"a rule about nodes", []string{u + `{"tier":"Admin","priority":1,` + all + `,"egress":[{"action":"Deny","to":[{"nodes":{}}]},{"action":"Deny","to":[{"nodes":{}}]}]}`}, "rule-not-judged p0 egress deny[0]; rule-not-judged p0 egress deny[1]"},
		{"what can't be enforced", []string{u + `{"tier":"Admin","priority":1,` + all + `,"egress":[{"action":"Deny","to":[{"domainNames":["fairlead.dev"]}]}]}`}, "policy-warning p0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := meshOf(tt.specs...)
			if got := codes(Run(m)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A finding names the rule that covers another as it is written, though the other was taken out before it.
func TestFindingsNameRulesAsTheyAreWritten(t *testing.T) {
	for _, specs := range [][]string{
		{policy.KindMeshNetworkPolicy + ` {"podSelector":{},"ingress":{"allow":[{"ports":[{"port":80}]},{"ports":[{"port":90}]},{"ports":[{"port":70,"endPort":100}]}]}}`},
		{policy.KindClusterNetworkPolicy + ` {"tier":"Baseline","priority":1,"subject":{"namespaces":{}},"egress":[
			{"action":"Accept","to":[{"networks":["10.0.0.0/8"]}]},{"action":"Accept","to":[{"networks":["10.1.0.0/16"]}]},{"action":"Deny","to":[{"networks":["10.1.0.0/16"]}]},{"action":"Deny","to":[{"networks":["0.0.0.0/0"]}]}]}`},
	} {
		for _, f := range Run(meshOf(specs...)).Findings {
			if strings.Contains(f.Message, ", "+f.Rule+" ") || f.Code == CodeRedundant && !strings.Contains(f.Message, "allow[2] decides") && !strings.Contains(f.Message, "allow[0] decides") {
				t.Errorf("%+v", f)
			}
		}
	}
}

func TestFindingsAboutPods(t *testing.T) {
	m := meshOf(policy.KindNetworkPolicy+` {"podSelector":{"matchLabels":{"app":"db"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"wbe"}}},{"podSelector":{"matchLabels":{"app":"web"}}}]}]}`,
		policy.KindNetworkPolicy+` {"podSelector":{"matchLabels":{"app":"bd"}}}`)
	for _, app := range []string{"db", "web"} {
		m.Clusters["east"].Pods = append(m.Clusters["east"].Pods, &world.Pod{Cluster: "east", Namespace: "shop", Name: app, Labels: map[string]string{"app": app}})
	}
	if err := m.Number(); err != nil {
		t.Fatal(err)
	}
	if got, want := codes(Run(m)), "peer-matches-nobody p0 ingress allow[0], from[0]; selects-nobody p1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m.Clusters["east"].Missing = []string{"read Pods: forbidden"}
	if r := Run(m); len(r.Findings) > 0 || len(r.Skipped) != 1 {
		t.Errorf("pods could not be read, and it finds %s, skips %v", codes(r), r.Skipped)
	}
}

// What is called redundant or shadowed can be taken out, one rule after the other, and no verdict in a random mesh changes.
func TestRedundantRulesCanGo(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		m := asEnforced(anymesh.Draw(t))
		c := m.Clusters["east"]
		before := m.Reference("east")
		gone := map[string]map[string]bool{}
		l := linter{mesh: m, cluster: c}
		for _, f := range l.run() {
			if f.Code == CodeRedundant || f.Code == CodeShadowed || f.Code == CodeNeverMatches {
				if gone[f.Policy] == nil {
					gone[f.Policy] = map[string]bool{}
				}
				gone[f.Policy][f.Rule] = true
				found++
			}
		}
		w := m.World("east")
		w.Policies = nil
		for _, p := range c.Policies {
			w.Policies = append(w.Policies, shrink(p, gone[world.PolicyName(p.Model.Key())]))
		}
		after := policy.NewReference(w)
		for _, conn := range connections(m) {
			if a, b := before.Explain(conn), after.Explain(conn); a.Verdict != b.Verdict {
				for _, p := range c.Policies {
					t.Logf("%s %s", p.Model.Key(), p.Record.Spec)
				}
				t.Fatalf("without %v the verdict about %+v (%v) is %s, was %s by %+v", gone, conn, m.World("east").Identities[conn.Peer], b.Verdict, a.Verdict, a.Rule)
			}
		}
	})
	if found == 0 {
		t.Error("no random rule was redundant: the test proves nothing")
	}
}

func connections(m *world.Mesh) []policy.Connection {
	var out []policy.Connection
	for _, subject := range m.Clusters["east"].Pods {
		for _, name := range m.Names() {
			for _, peer := range m.Clusters[name].Pods {
				for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
					for _, port := range []uint16{1, 9, 14, 79, 80, 81, 129, 130, 443, 8080, 8081} {
						for _, proto := range []uint8{6, 17, icmp.V4, icmp.V6} {
							if _, is := icmp.Type(port); icmp.Is(proto) && !is {
								continue
							}
							c := policy.Connection{Subject: subject.Identity, Peer: peer.Identity, Addr: peer.Addresses[0], Dir: dir, Proto: proto, Port: port}
							out = append(out, c)
							c.Peer = identity.World
							out = append(out, c)
							c.Peer = identity.Unknown
							out = append(out, c)
						}
					}
				}
			}
		}
	}
	return out
}

func TestEveryCodeIsExplained(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/reference/policy-commands.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (error|warning|info) \\|").FindAllStringSubmatch(string(docs), -1) {
		explained = append(explained, m[1])
		if severities[Code(m[1])] != Severity(m[2]) {
			t.Errorf("%s is %s and explained as %s", m[1], severities[Code(m[1])], m[2])
		}
	}
	for _, c := range Codes() {
		if !slices.Contains(explained, string(c)) {
			t.Errorf("docs/reference/policy-commands.md doesn't explain %s", c)
		}
	}
	if len(explained) != len(Codes()) || len(severities) != len(Codes()) {
		t.Errorf("%d codes, %d severities, %d explained", len(Codes()), len(severities), len(explained))
	}
}
