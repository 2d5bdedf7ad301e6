// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// A rule that is not understood is closed, as the API's definition wants it; the rules beside it stay in force.
func TestUnknownRulesOfClusterNetworkPoliciesAreClosed(t *testing.T) {
	const to80 = `{"action":"Accept","to":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"number":80}}}]}`
	for _, tt := range []struct {
		name, rule string
		want       string // in the warning
		first      Verdict
		last       Verdict // where the rule stands behind one that accepts port 80
	}{
		{"accept names", `{"action":"Accept","to":[{"domainNames":["a.example"]}]}`, "spec.egress[0].to[0]: domainNames can't be enforced yet; the rule accepts nobody", Allow, Allow},
		{"deny names", `{"action":"Deny","to":[{"domainNames":["a.example"]}]}`, "domainNames can't be enforced yet; the rule denies everybody", Deny, Allow},
		{"pass names", `{"action":"Pass","to":[{"domainNames":["a.example"]}]}`, "the rule denies everybody", Deny, Allow},
		{"accept names and pods", `{"action":"Accept","to":[{"namespaces":{}},{"domainNames":["a.example"]}]}`, "the rule accepts nobody", Allow, Allow},
		{"deny names on another port", `{"action":"Deny","to":[{"domainNames":["a.example"]}],"protocols":[{"tcp":{"destinationPort":{"number":81}}}]}`, "denies everybody", Allow, Allow},
		{"a peer of a later version", `{"action":"Deny","to":[{"services":{}}]}`, "services", Deny, Allow},
		{"a peer of a later version, accepted", `{"action":"Accept","to":[{"services":{}}]}`, "services", Allow, Allow},
		{"no peers", `{"action":"Deny","to":[]}`, "needs to", Deny, Allow},
		{"a direction's other list", `{"action":"Deny","from":[{"namespaces":{}}]}`, "needs to", Deny, Allow},
		{"an action of a later version", `{"action":"Log","to":[{"namespaces":{}}]}`, `action "Log"`, Deny, Allow},
		{"a protocol of a later version", `{"action":"Deny","to":[{"namespaces":{}}],"protocols":[{"icmp":{}}]}`, "icmp", Deny, Allow},
		{"ports that can't be", `{"action":"Deny","to":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":90,"end":81}}}}]}`, "endPort 81", Deny, Allow},
		{"two protocols in one", `{"action":"Deny","to":[{"namespaces":{}}],"protocols":[{"tcp":{},"udp":{}}]}`, "exactly one of", Deny, Allow},
		{"a range that is none", `{"action":"Deny","to":[{"networks":["10.0.0.0"]}]}`, "is not a CIDR", Deny, Allow},
		{"named ports of networks", `{"action":"Deny","to":[{"networks":["10.0.0.0/8"]}],"protocols":[{"destinationNamedPort":"http"}]}`, "no named ports", Deny, Allow},
		{"an operator of a later version", `{"action":"Deny","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"a","operator":"Gt"}]}}}]}`, "podSelector", Deny, Allow},
		{"a label that identities leave out", `{"action":"Deny","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"controller-uid":"1"}}}}]}`, "the rule denies everybody who may be meant", Deny, Allow},
		{"others with such a label", `{"action":"Deny","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web","controller-uid":"1"}}}}]}`, "controller-uid", Allow, Allow},
		{"accept by such a label", `{"action":"Accept","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"controller-uid":"1"}}}}]}`, "the rule allows nobody by it", Allow, Allow},
		{"pass by such a label", `{"action":"Pass","to":[{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"controller-uid":"1"}}}}]}`, "the rule denies everybody who may be meant", Deny, Allow},
		{"no rule at all", `7`, "cannot unmarshal", Deny, Allow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := policyOf(KindClusterNetworkPolicy, "", "p", `{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"egress":[`+tt.rule+`]}`)
			if problems := first.Problems(); !slices.ContainsFunc(problems, func(p Problem) bool { return p.Warning && strings.Contains(p.Message, tt.want) }) {
				t.Errorf("problems are %+v, want a warning with %q", problems, tt.want)
			}
			if why := verdicts(t, tcp80(web, db, Egress), first); why.Verdict != tt.first {
				t.Errorf("alone: %s", &why)
			}
			last := policyOf(KindClusterNetworkPolicy, "", "p", `{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"egress":[`+to80+`,`+tt.rule+`]}`)
			if why := verdicts(t, tcp80(web, db, Egress), last); why.Verdict != tt.last {
				t.Errorf("behind another: %s", &why)
			}
		})
	}
}

// Ranges of addresses mean whoever has an address in them: pods, nodes and what is outside; of unknown peers every deny.
func TestNetworksOfClusterNetworkPolicies(t *testing.T) {
	out4, out6, in4 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2600::1"), netip.MustParseAddr("10.1.2.3")
	for _, tt := range []struct {
		name, action, networks            string
		toPod, toNode, to4, to6, toNobody Verdict
	}{
		{"deny a range outside", "Deny", `"192.0.2.0/24"`, Allow, Allow, Deny, Allow, Deny},
		{"deny a range with pods", "Deny", `"10.0.0.0/8"`, Deny, Deny, Allow, Allow, Deny},
		{"deny all of IPv4", "Deny", `"0.0.0.0/0"`, Deny, Deny, Deny, Allow, Deny},
		{"deny all", "Deny", `"0.0.0.0/0","::/0"`, Deny, Deny, Deny, Deny, Deny},
		{"accept all of IPv4", "Accept", `"0.0.0.0/0"`, Allow, Allow, Allow, Deny, Deny},
		{"accept all", "Accept", `"0.0.0.0/0","::/0"`, Allow, Allow, Allow, Allow, Deny},
		{"accept a range with pods", "Accept", `"10.0.0.0/8"`, Allow, Allow, Deny, Deny, Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			policies := []*Model{policyOf(KindClusterNetworkPolicy, "", "p",
				`{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"egress":[{"action":"`+tt.action+`","to":[{"networks":[`+tt.networks+`]}]}]}`)}
			if problems := policies[0].Problems(); len(problems) > 0 {
				t.Errorf("problems are %v", problems)
			}
			if tt.action == "Accept" {
				policies = append(policies, policyOf(KindNetworkPolicy, "shop", "closed", `{"podSelector":{},"policyTypes":["Egress"]}`))
			}
			for _, to := range []struct {
				peer uint32
				addr netip.Addr
				want Verdict
			}{{db, in4, tt.toPod}, {identity.RemoteNode, in4, tt.toNode}, {identity.World, out4, tt.to4}, {identity.World, out6, tt.to6}, {identity.Unknown, in4, tt.toNobody}} {
				c := Connection{Subject: web, Peer: to.peer, Addr: to.addr, Dir: Egress, Proto: protoTCP, Port: 80}
				if why := verdicts(t, c, policies...); why.Verdict != to.want {
					t.Errorf("%+v: %s, want %s", c, &why, to.want)
				}
			}
		})
	}
}

// Peers that are nodes mean the addresses of those of the own cluster that the selector chooses, as these are now.
func TestNodesOfClusterNetworkPolicies(t *testing.T) {
	addr := netip.MustParseAddr
	worker, infra := addr("192.0.2.1"), addr("2001:db8::2")
	rule := func(action, nodes string) *Model {
		return policyOf(KindClusterNetworkPolicy, "", "p",
			`{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"egress":[{"action":"`+action+`","to":[{"nodes":`+nodes+`}]}]}`)
	}
	const workers = `{"matchLabels":{"role":"worker"}}`
	w := smallWorld(rule("Deny", workers).rec)
	w.Nodes = map[string]Node{
		"n1": {Labels: map[string]string{"role": "worker"}, Addresses: []netip.Addr{worker}},
		"n2": {Addresses: []netip.Addr{infra}},
	}
	e, k := build(w)
	expect := func(what string, peer uint32, to netip.Addr, want Verdict) {
		t.Helper()
		c := Connection{Subject: web, Peer: peer, Addr: to, Dir: Egress, Proto: protoTCP, Port: 80}
		why := NewReference(w).Explain(c)
		if got := k.decide(c).Decision; got != why.Decision || got.Verdict != want {
			t.Errorf("%s: the maps say %s, the reference %s, want %s", what, got.Verdict, &why, want)
		}
	}
	step := func() { k.apply(e.Step()) }
	expect("a worker", identity.RemoteNode, worker, Deny)
	expect("another node", identity.RemoteNode, infra, Allow)
	expect("a host-network pod elsewhere", identity.World, worker, Deny)
	expect("somebody unknown", identity.Unknown, addr("10.1.9.9"), Deny)

	n2 := Node{Labels: map[string]string{"role": "worker"}, Addresses: []netip.Addr{infra}}
	w.Nodes["n2"] = n2
	e.SetNode("n2", &n2)
	step()
	expect("it became a worker", identity.RemoteNode, infra, Deny)
	delete(w.Nodes, "n1")
	e.SetNode("n1", nil)
	step()
	expect("it is gone", identity.World, worker, Allow)
	delete(w.Nodes, "n2")
	e.SetNode("n2", nil)
	step()
	expect("all are gone", identity.World, infra, Allow)
	expect("somebody unknown, and no node", identity.Unknown, addr("10.1.9.9"), Deny)

	unconcerned := Node{Labels: map[string]string{"role": "infra"}, Addresses: []netip.Addr{worker}}
	e.SetNode("n3", &unconcerned)
	if d := e.Step(); d.writes() {
		t.Errorf("a node that no policy names changes %+v", d)
	}

	if why := verdicts(t, Connection{Subject: web, Peer: identity.RemoteNode, Addr: worker, Dir: Egress, Proto: protoTCP, Port: 80}, rule("Deny", "{}")); why.Verdict != Allow {
		t.Errorf("of no nodes: %s", &why)
	}
	if text := NewReference(w).Explain(Connection{Subject: web, Peer: identity.Unknown, Addr: addr("10.1.9.9"), Dir: Egress, Proto: protoTCP, Port: 80}); !strings.Contains(text.String(), "deny to nodes role=worker") {
		t.Errorf("the rule's text is %s", &text)
	}
	if problems := rule("Deny", `{"matchExpressions":[{"key":"a","operator":"Near"}]}`).Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "nodes") {
		t.Errorf("an operator that isn't known: %+v", problems)
	}
}

func TestClusterNetworkPoliciesAreOfTheirOwnCluster(t *testing.T) {
	m := policyOf(KindClusterNetworkPolicy, "", "p",
		`{"tier":"Admin","priority":5,"subject":{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web"}}}},
		"ingress":[{"name":"ours","action":"Deny","from":[{"namespaces":{}}]}]}`)
	for peer, want := range map[uint32]Verdict{db: Deny, farWeb: Allow} {
		if why := verdicts(t, tcp80(web, peer, Ingress), m); why.Verdict != want {
			t.Errorf("from %s: %s", identity.Name(peer), &why)
		} else if want == Deny && !strings.Contains(why.String(), `deny from all pods in all namespaces ("ours")`) {
			t.Errorf("the rule's name is missing: %s", &why)
		}
	}
	if why := verdicts(t, tcp80(db, web, Ingress), m); why.Verdict != Allow {
		t.Errorf("db is no subject: %s", &why)
	}
}

// What nobody knows of the own node's labels closes: a denial of nodes means it, and nothing that opens does. A pass denies it.
func TestOwnNodesLabelsMayNotBeKnown(t *testing.T) {
	for _, tt := range []struct {
		name, spec string
		late, then Verdict
	}{
		{"deny", `"egress":[{"action":"Deny","to":[{"nodes":{"matchLabels":{"role":"worker"}}}]}]`, Deny, Allow},
		{"pass", `"egress":[{"action":"Pass","to":[{"nodes":{"matchLabels":{"role":"worker"}}}]}]`, Deny, Allow},
		{"accept before a deny", `"egress":[{"action":"Accept","to":[{"nodes":{"matchLabels":{"role":"infra"}}}]},{"action":"Deny","to":[{"networks":["0.0.0.0/0"]}]}]`, Deny, Allow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := policyOf(KindClusterNetworkPolicy, "", "p", `{"tier":"Admin","priority":5,"subject":{"namespaces":{}},`+tt.spec+`}`)
			w := smallWorld(m.rec)
			w.Node = "n1"
			e, k := build(w)
			c := Connection{Subject: web, Peer: identity.Host, Addr: netip.MustParseAddr("192.0.2.1"), Dir: Egress, Proto: protoTCP, Port: 10250}
			expect := func(when string, want Verdict) {
				t.Helper()
				if got := k.decide(c); got.Verdict != want {
					t.Errorf("%s: %s, want %s", when, got.Verdict, want)
				}
			}
			expect("no record", tt.late)
			e.SetNode("n1", &Node{Labels: map[string]string{"role": "infra"}})
			k.apply(e.Step())
			expect("a record", tt.then)
			e.SetNode("n1", nil)
			k.apply(e.Step())
			expect("it is gone", tt.late)
		})
	}
}

// A change of nodes that no rule is about costs nothing.
func TestNodesThatChangeNothing(t *testing.T) {
	m := policyOf(KindClusterNetworkPolicy, "", "p", `{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"egress":[{"action":"Deny","to":[{"nodes":{"matchLabels":{"role":"worker"}}}]}]}`)
	w := smallWorld(m.rec)
	w.Nodes = map[string]Node{"n1": {Labels: map[string]string{"role": "worker"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	e, _ := build(w)
	before := e.policies.byKey[m.key]
	e.SetNode("n1", &Node{Labels: map[string]string{"role": "worker", "load": "high"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	e.SetNode("n2", &Node{Labels: map[string]string{"role": "infra"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}})
	e.Step()
	if e.policies.byKey[m.key] != before {
		t.Error("the policy was installed anew")
	}
}
