// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// A policy that asks for a label which identities leave out closes for all pods that may be meant, opens for none, and says so.
// smallWorld's web and db are in the policy's namespace.
func TestLabelsThatIdentitiesLeaveOut(t *testing.T) {
	const n, m = KindNetworkPolicy, KindMeshNetworkPolicy
	const subjects = "spec.podSelector: label statefulset.kubernetes.io/pod-name is not part of a pod's identity"
	const subjectsDo = "the policy selects every pod that may be meant, and its allow rules apply to none of them"
	const (
		none   = ""
		webOne = `"matchLabels":{"app":"web","statefulset.kubernetes.io/pod-name":"web-0"}`
	)
	for _, tt := range []struct {
		name, kind, spec string
		closed           string // connections that are denied: "web<db web>db db<web db>web"
		want             []string
	}{
		{"subjects, isolated", n, `{"podSelector":{` + webOne + `},"ingress":[]}`, "web<db", []string{subjects, subjectsDo}},
		{"subjects, with an allow rule", n, `{"podSelector":{` + webOne + `},"ingress":[{}]}`, "web<db", []string{subjects, subjectsDo}},
		{"subjects, by that label alone", n, `{"podSelector":{"matchLabels":{"statefulset.kubernetes.io/pod-name":"db-0"}},"policyTypes":["Egress"],"egress":[{}]}`, "web>db db>web", []string{subjects}},
		{"subjects, not with that label", n, `{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["db"]},{"key":"pod-template-hash","operator":"NotIn","values":["1"]}]},"ingress":[{}]}`, "db<web", []string{"spec.podSelector: label pod-template-hash"}},
		{"subjects, without that label", n, `{"podSelector":{"matchExpressions":[{"key":"pod-template-hash","operator":"DoesNotExist"}]},"ingress":[{}]}`, "web<db db<web", []string{"spec.podSelector: label pod-template-hash"}},
		{"subjects that the rest excludes", n, `{"podSelector":{"matchLabels":{"app":"cache","pod-template-hash":"1"}},"ingress":[]}`, none, []string{"spec.podSelector: label pod-template-hash"}},
		{"subjects, by a label that pods could forge", n, `{"podSelector":{"matchLabels":{"app":"web","fairlead.dev/team":"red"}},"ingress":[]}`, "web<db", []string{"spec.podSelector: label fairlead.dev/team is not part of a pod's identity"}},
		{"subjects, by a label that Fairlead gives", n, `{"podSelector":{"matchLabels":{"app":"web","fairlead.dev/namespace":"shop"}},"ingress":[{}]}`, none, nil},
		{"subjects, isolated by nothing", m, `{"podSelector":{` + webOne + `},"ingress":{"defaultAction":"Allow","allow":[{}]}}`, none, []string{subjects, subjectsDo}},
		{"subjects, with a deny rule", m, `{"podSelector":{` + webOne + `},"egress":{"defaultAction":"Allow","deny":[{"peers":[{"podSelector":{"matchLabels":{"app":"db"}}}]}]}}`, "web>db", []string{subjects, subjectsDo}},
		{
			"allowed peer", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"db","controller-uid":"1"}}}]}]}`, "web<db db<web",
			[]string{"spec.ingress[0].from[0].podSelector: label controller-uid", "the rule allows nobody by it"},
		},
		{
			"allowed peer beside another", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchLabels":{"controller-uid":"1"}}},{"podSelector":{"matchLabels":{"app":"web"}}}]}]}`, "web<db",
			[]string{"spec.ingress[0].from[0].podSelector: label controller-uid"},
		},
		{"allowed peer, not with that label", n, `{"podSelector":{},"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"controller-uid","operator":"NotIn","values":["1"]}]}}]}]}`, "web<db db<web", []string{"spec.ingress[0].from[0].podSelector: label controller-uid"}},
		{
			"denied peer", m, `{"podSelector":{},"ingress":{"defaultAction":"Allow","deny":[{"peers":[{"podSelector":{"matchLabels":{"app":"db","controller-uid":"1"}}}]}]}}`, "web<db",
			[]string{"spec.ingress.deny[0].peers[0].podSelector: label controller-uid", "the rule denies everybody who may be meant"},
		},
		{"denied peer, not with that label", m, `{"podSelector":{},"ingress":{"defaultAction":"Allow","deny":[{"peers":[{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["web"]},{"key":"controller-uid","operator":"DoesNotExist"}]}}]}]}}`, "db<web", []string{"spec.ingress.deny[0].peers[0].podSelector: label controller-uid"}},
		{"the namespace's label", m, `{"podSelector":{},"ingress":{"allow":[{"peers":[{"namespaceSelector":{"matchExpressions":[{"key":"pod-template-hash","operator":"DoesNotExist"}]}}]}]}}`, none, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReference(smallWorld(&record.Policy{PolicyKind: tt.kind, Namespace: "shop", Name: "p", Spec: []byte(tt.spec)}))
			var said []string
			for _, p := range r.Problems {
				said = append(said, p.PolicyKey+": "+p.Message)
				if !p.Warning {
					t.Errorf("%q is no warning", p.Message)
				}
			}
			all := strings.Join(said, "\n")
			for _, want := range tt.want {
				if !strings.Contains(all, want) || !strings.Contains(all, tt.kind+"/shop/p: ") {
					t.Errorf("problems are %q, want one with %q", all, want)
				}
			}
			if len(tt.want) == 0 && all != "" {
				t.Errorf("problems are %q", all)
			}
			for name, c := range map[string]Connection{
				"web<db": tcp80(web, db, Ingress), "web>db": tcp80(web, db, Egress),
				"db<web": tcp80(db, web, Ingress), "db>web": tcp80(db, web, Egress),
			} {
				if got, want := !r.Evaluate(c).Passes(), strings.Contains(tt.closed, name); got != want {
					t.Errorf("%s: closed %t, want %t", name, got, want)
				}
			}
		})
	}
}

// What denies says why: people see the rule's text beside a dropped flow.
func TestIsolationOfAWidenedPolicySaysWhy(t *testing.T) {
	p := &record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: "p", Spec: []byte(
		`{"podSelector":{"matchLabels":{"statefulset.kubernetes.io/pod-name":"db-0"}},"ingress":[{}]}`)}
	r := NewReference(smallWorld(p))
	rule := r.Rules[r.Evaluate(tcp80(web, db, Ingress)).Rule]
	if rule.Kind != RuleIsolate || !strings.Contains(rule.Text, "statefulset.kubernetes.io/pod-name") {
		t.Errorf("the denial is blamed on %+v", rule)
	}
}

// A policy without doubt opens what it allows, also for pods that a policy with such a label isolates.
func TestAnotherPolicyAllowsWhatAWidenedOneDoesNot(t *testing.T) {
	w := smallWorld(&record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: "p", Spec: []byte(
		`{"podSelector":{"matchLabels":{"statefulset.kubernetes.io/pod-name":"db-0"}},"ingress":[{}]}`)})
	if NewReference(w).Evaluate(tcp80(web, db, Ingress)).Passes() {
		t.Fatal("the pods are open")
	}
	w.Policies = append(w.Policies, Parse(&record.Policy{PolicyKind: KindNetworkPolicy, Namespace: "shop", Name: "q", Spec: []byte(
		`{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"db"}}}]}]}`)}))
	r := NewReference(w)
	if !r.Evaluate(tcp80(web, db, Ingress)).Passes() || r.Evaluate(tcp80(db, web, Ingress)).Passes() {
		t.Error("the other policy opens nothing, or too much")
	}
}
