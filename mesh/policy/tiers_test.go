// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func policyOf(kind, namespace, name, spec string) *Model {
	return Parse(&record.Policy{PolicyKind: kind, Namespace: namespace, Name: name, Spec: []byte(spec)})
}

func tiered(name, spec string) *Model { return policyOf(KindClusterMeshNetworkPolicy, "", name, spec) }

// verdicts asks the reference and the maps, which must agree.
func verdicts(t *testing.T, c Connection, policies ...*Model) Explanation {
	t.Helper()
	w := smallWorld(policies[0].rec)
	w.Policies = policies
	for _, m := range policies {
		if len(m.problems) > 0 {
			t.Fatalf("%s: %v", m.key, m.problems)
		}
	}
	_, k := build(w)
	why := NewReference(w).Explain(c)
	if got := k.decide(c).Decision; got != why.Decision {
		t.Fatalf("the maps say %+v, the reference %+v", got, why.Decision)
	}
	return why
}

// What the tiers are for, one sentence each: web is asked whether db may come in.
func TestTiers(t *testing.T) {
	const (
		admin    = `{"tier":"Admin","priority":10,"podSelector":{},"ingress":{"defaultAction":"Allow",`
		late     = `{"tier":"Admin","priority":20,"podSelector":{},"ingress":{"defaultAction":"Allow",`
		baseline = `{"tier":"Baseline","priority":10,"podSelector":{},"ingress":{"defaultAction":"Allow",`
		all      = `:[{"peers":[{"podSelector":{}}]}]}`
		isolates = `{"podSelector":{},"ingress":{}}`
		allows   = `{"podSelector":{},"ingress":{"allow":[{}]}}`
		subtract = `{"podSelector":{},"ingress":{"defaultAction":"Allow","allow":[{}]}}`
	)
	ns := func(spec string) *Model { return policyOf(KindMeshNetworkPolicy, "shop", "ns", spec) }
	for _, tt := range []struct {
		name     string
		policies []*Model
		verdict  Verdict
		by       string // name of the policy that decides; empty: none
		passed   string
	}{
		{"a namespace's allow can't override an administrator's deny", []*Model{ns(allows), tiered("a", admin+`"deny"`+all+`}`)}, Deny, "a", ""},
		{"without a tier, nor can it", []*Model{ns(allows), tiered("a", `{"podSelector":{},"ingress":{"defaultAction":"Allow","deny"`+all+`}`)}, Deny, "a", ""},
		{"a namespace's isolation can't override an administrator's allow", []*Model{ns(isolates), tiered("a", admin+`"allow"`+all+`}`)}, Allow, "a", ""},
		{"the lower priority decides", []*Model{tiered("a", late+`"deny"`+all+`}`), tiered("b", admin+`"allow"`+all+`}`)}, Allow, "b", ""},
		{"of equal priorities, the first name does", []*Model{tiered("b", admin+`"deny"`+all+`}`), tiered("a", admin+`"allow"`+all+`}`)}, Allow, "a", ""},
		{"a pass skips what follows in its tier", []*Model{tiered("a", admin+`"pass"`+all+`}`), tiered("b", late+`"deny"`+all+`}`)}, Allow, "", "a"},
		{"what an administrator passes, the namespace denies", []*Model{tiered("a", admin+`"pass"`+all+`}`), tiered("b", late+`"allow"`+all+`}`), ns(isolates)}, Deny, "ns", "a"},
		{"what nobody decides, Baseline does", []*Model{tiered("c", baseline+`"deny"`+all+`}`)}, Deny, "c", ""},
		{"where a namespace isolates, Baseline isn't asked", []*Model{ns(isolates), tiered("c", baseline+`"allow"`+all+`}`)}, Deny, "ns", ""},
		{"nor where a namespace allows", []*Model{ns(subtract), tiered("c", baseline+`"deny"`+all+`}`)}, Allow, "ns", ""},
		{"a Baseline that passes leaves it open", []*Model{tiered("a", baseline+`"pass"`+all+`}`), tiered("b", baseline+`"deny"`+all+`}`)}, Allow, "a", ""},
		{"the default action denies what no rule matches", []*Model{tiered("a", `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"allow":[{"peers":[{"cidr":"10.0.0.0/8"}]}]}}`), ns(allows)}, Deny, "a", ""},
		{"equal lines of two tiers are two lines", []*Model{tiered("a", admin+`"pass":[{"ports":[{"port":80}]}],"allow":[{"ports":[{"port":81}]}]}}`),
			tiered("b", late+`"allow":[{}]}}`), ns(allows)}, Allow, "ns", "a"},
		{"an audit deny reports", []*Model{tiered("a", strings.Replace(admin, "{", `{"mode":"Audit",`, 1)+`"deny"`+all+`}`), ns(allows)}, AuditDeny, "a", ""},
		{"an audit allow opens nothing", []*Model{tiered("a", strings.Replace(admin, "{", `{"mode":"Audit",`, 1)+`"allow"`+all+`}`), ns(isolates)}, Deny, "ns", ""},
		{"an audit allow spares from an audit deny", []*Model{tiered("a", strings.Replace(admin, "{", `{"mode":"Audit",`, 1)+`"allow"`+all+`}`),
			tiered("b", strings.Replace(late, "{", `{"mode":"Audit",`, 1)+`"deny"`+all+`}`)}, Allow, "", ""},
		{"an audit pass would take away an allow", []*Model{tiered("a", strings.Replace(admin, "{", `{"mode":"Audit",`, 1)+`"pass"`+all+`}`),
			tiered("b", late+`"allow"`+all+`}`), ns(isolates)}, AuditDeny, "ns", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			why := verdicts(t, tcp80(web, db, Ingress), tt.policies...)
			by, passed := "", ""
			if why.Rule != nil {
				by = why.Rule.Name
			}
			if why.Passed != nil {
				passed = why.Passed.Name
			}
			if why.Verdict != tt.verdict || by != tt.by || passed != tt.passed {
				t.Errorf("%s by %q, passed by %q (%s)", why.Verdict, by, passed, &why)
			}
		})
	}
}

func TestExplanationNamesTierAndPass(t *testing.T) {
	why := verdicts(t, tcp80(web, db, Ingress),
		tiered("guard", `{"tier":"Admin","priority":7,"podSelector":{},"ingress":{"pass":[{"peers":[{"podSelector":{}}]}]}}`),
		tiered("floor", `{"tier":"Baseline","priority":3,"podSelector":{},"ingress":{}}`))
	want := "deny by ClusterMeshNetworkPolicy/-/floor: Baseline tier, priority 3: ingress that no rule of the policy matches is denied; " +
		"passed to the next tier by ClusterMeshNetworkPolicy/-/guard: Admin tier, priority 7: pass from all pods in all namespaces"
	if got := why.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if why.Rule.Tier != TierBaseline || why.Passed.Tier != TierAdmin {
		t.Errorf("tiers are %s and %s", why.Rule.Tier, why.Passed.Tier)
	}
}

// A pass that has no room denies: what it leaves out might be allowed by a rule behind it, and denied by the namespace.
func TestAPassWithoutRoomDenies(t *testing.T) {
	w := smallWorld(policyOf(KindMeshNetworkPolicy, "shop", "ns", `{"podSelector":{},"ingress":{}}`).rec)
	w.Policies = append(w.Policies,
		tiered("a", `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","pass":[{"peers":[{"podSelector":{"matchLabels":{"app":"db"}}}]}]}}`),
		tiered("b", `{"tier":"Admin","priority":2,"podSelector":{},"ingress":{"allow":[{}]}}`))
	limits := roomy
	limits.Sets = 1
	e, k := NewEngine(Config{Cluster: w.Cluster, Limits: limits}), newKernel()
	load(e, w, nil)
	k.apply(e.Step())
	if k.decide(tcp80(web, db, Ingress)).Passes() {
		t.Error("db passes, which the namespace denies")
	}
	if len(e.roomProblems()) == 0 {
		t.Error("nobody says that there is no room")
	}
}

func TestPassLinesLeadBehindTheAdminTier(t *testing.T) {
	w := smallWorld(tiered("a", `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow",
		"deny":[{"ports":[{"port":1}]}],"pass":[{"ports":[{"port":80},{"port":81}]}]}}`).rec)
	w.Policies = append(w.Policies, policyOf(KindNetworkPolicy, "shop", "ns", `{"podSelector":{},"ingress":[{"ports":[{"port":80}]}]}`))
	_, k := build(w)
	lines := k.groups[k.subjects[SubjectKey{web, Ingress}].Group]
	if len(lines) != LinesPerChunk+1 || lines[1].Verdict != Pass || lines[1].Rule != 1 || lines[2].Rule != 1 || lines[LinesPerChunk].Verdict != Allow {
		t.Errorf("lines are %+v", lines)
	}
	if d := k.decide(tcp80(web, db, Ingress)); d.Verdict != Allow {
		t.Errorf("port 80: %+v", d)
	}
	if d := k.decide(Connection{Subject: web, Peer: identity.World, Dir: Ingress, Proto: protoTCP, Port: 81}); d.Verdict != Deny || !d.ByDefault {
		t.Errorf("port 81: %+v", d)
	}
}

// Peers without labels, and pods by what they run as.
func TestEntitiesAndServiceAccounts(t *testing.T) {
	allow := func(peer string) *Model {
		return policyOf(KindMeshNetworkPolicy, "shop", "p", `{"podSelector":{},"ingress":{"allow":[{"peers":[`+peer+`]}]}}`)
	}
	addr := netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		name, peer                 string
		fromPod, fromNode, fromOut Verdict
	}{
		{"the world", `{"entities":["World"]}`, Deny, Deny, Allow},
		{"nodes", `{"entities":["Nodes"]}`, Deny, Allow, Deny},
		{"both", `{"entities":["World","Nodes"]}`, Deny, Allow, Allow},
		{"the pod's account", `{"serviceAccounts":["robot"]}`, Allow, Deny, Deny},
		{"the pod's account and another", `{"serviceAccounts":["other","robot"],"podSelector":{}}`, Allow, Deny, Deny},
		{"another account", `{"serviceAccounts":["other"]}`, Deny, Deny, Deny},
		{"a name that no label could have", `{"serviceAccounts":["` + strings.Repeat("a", 100) + `"]}`, Deny, Deny, Deny},
		{"the account of other pods", `{"serviceAccounts":["robot"],"podSelector":{"matchLabels":{"app":"else"}}}`, Deny, Deny, Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := allow(tt.peer)
			w := smallWorld(m.rec)
			w.Identities[db] = identity.PodLabels("east", "shop", "robot", map[string]string{"app": "db"}, nil)
			_, k := build(w)
			for peer, want := range map[uint32]Verdict{db: tt.fromPod, identity.RemoteNode: tt.fromNode, identity.World: tt.fromOut, identity.Unknown: Deny} {
				c := Connection{Subject: web, Peer: peer, Addr: addr, Dir: Ingress, Proto: protoTCP, Port: 80}
				why := NewReference(w).Explain(c)
				if got := k.decide(c).Decision; got != why.Decision || got.Verdict != want {
					t.Errorf("from %s: the maps say %s, the reference %s, want %s", identity.Name(peer), got.Verdict, &why, want)
				}
			}
		})
	}
}

// An agent of before entities left a row for nodes that is in no set. The next one takes it over.
func TestNodesOfAnAgentBefore(t *testing.T) {
	m := policyOf(KindMeshNetworkPolicy, "shop", "p", `{"podSelector":{},"ingress":{"allow":[{"peers":[{"entities":["Nodes"]}]}]}}`)
	w := smallWorld(m.rec)
	_, k := build(w)
	was := k.remembered()
	was.Identities[identity.RemoteNode] = 0
	k.identities[identity.RemoteNode] = 0
	e := NewEngine(Config{Cluster: w.Cluster, Limits: roomy, Remembered: was})
	load(e, w, nil)
	k.apply(e.Step())
	c := Connection{Subject: web, Peer: identity.RemoteNode, Dir: Ingress, Proto: protoTCP, Port: 80}
	if d := k.decide(c); !d.Passes() {
		t.Errorf("a node is denied: %+v", d)
	}
}
