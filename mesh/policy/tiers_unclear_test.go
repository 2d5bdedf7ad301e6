// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// unknownPeer has an address of the own cluster that nobody vouches for.
var unknownPeer = Connection{Subject: web, Peer: identity.Unknown, Addr: netip.MustParseAddr("10.1.0.9"), Dir: Ingress, Proto: protoTCP, Port: 80}

// Behind each pass an administrator accepts everybody, and the namespace denies: who is let through by the one may be kept out by
// the other, so whoever is not known to be passed or not to be passed is denied.
func TestPassesOfWhichNobodyKnowsWhomTheyMean(t *testing.T) {
	const (
		pass = `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","pass":[{"peers":[`
		all  = `{"podSelector":{}}`
		db1  = `{"podSelector":{"matchLabels":{"app":"db","controller-uid":"1"}}}`
		web1 = `{"podSelector":{"matchLabels":{"app":"web","controller-uid":"1"}}}`
		subj = `{"tier":"Admin","priority":1,"podSelector":{"matchLabels":{"controller-uid":"1"}},"ingress":{"defaultAction":"Allow","pass":[`
	)
	open := tiered("b", `{"tier":"Admin","priority":2,"podSelector":{},"ingress":{"allow":[{}]}}`)
	closed := policyOf(KindNetworkPolicy, "shop", "ns", `{"podSelector":{},"ingress":[]}`)
	for _, tt := range []struct {
		name, spec string
		c          Connection
		verdict    Verdict
		by         string
	}{
		{"everybody is passed, whoever it is", strings.Replace(pass, `"peers":[`, "", 1) + `}]}}`, unknownPeer, Deny, "ns"},
		{"some are, and an unknown peer may be one", pass + all + `]}]}}`, unknownPeer, Deny, "a"},
		{"some addresses are", pass + `{"cidr":"192.0.2.0/24"}]}]}}`, unknownPeer, Deny, "a"},
		{"some are, on other ports", pass + all + `],"ports":[{"port":81}]}]}}`, unknownPeer, Allow, "b"},
		{"a label that nobody knows, of the peer", pass + db1 + `]}]}}`, tcp80(web, db, Ingress), Deny, "a"},
		{"and of others", pass + web1 + `]}]}}`, tcp80(web, db, Ingress), Allow, "b"},
		{"beside a peer that is known", pass + db1 + "," + all + `]}]}}`, tcp80(web, db, Ingress), Deny, "ns"},
		{"a label that nobody knows, of the subject", subj + `{}]}}`, tcp80(web, db, Ingress), Deny, "a"},
		{"of the subject, and of others' peers", subj + `{"peers":[{"podSelector":{"matchLabels":{"app":"web"}}}]}]}}`, tcp80(web, db, Ingress), Allow, "b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, mode := range []string{"", `"mode":"Audit",`} {
				why := verdicts(t, tt.c, tiered("a", strings.Replace(tt.spec, "{", "{"+mode, 1)), open, closed)
				verdict, by := tt.verdict, tt.by
				if mode != "" && verdict == Deny {
					verdict = AuditDeny // enforced, it would be denied
				}
				if why.Verdict != verdict || why.Rule == nil || why.Rule.Name != by {
					t.Errorf("%s%s, want %s by %q", mode, &why, verdict, by)
				}
			}
		})
	}
}

// In Baseline a pass allows, so it means only those that are known to be meant.
func TestPassesOfBaselineMeanNobodyUnknown(t *testing.T) {
	const pass = `{"tier":"Baseline","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","pass":[{"peers":[`
	for _, spec := range []string{
		pass + `{"podSelector":{}}]}]}}`, pass + `{"cidr":"10.0.0.0/8"}]}]}}`,
		pass + `{"podSelector":{"matchLabels":{"controller-uid":"1"}}}]}]}}`,
	} {
		for _, last := range []struct {
			rules string
			want  Verdict
		}{{`"allow":[{}]`, Allow}, {`"deny":[{}]`, Deny}} {
			why := verdicts(t, unknownPeer, tiered("a", spec), tiered("b", `{"tier":"Baseline","priority":2,"podSelector":{},"ingress":{`+last.rules+`}}`))
			if why.Verdict != last.want || why.Rule == nil || why.Rule.Name != "b" {
				t.Errorf("%s: %s", spec, &why)
			}
		}
	}
}

// A cluster without a record (yet) may be one that is passed.
func TestPassesOfUnknownClusters(t *testing.T) {
	a := tiered("a", `{"tier":"Admin","priority":1,"podSelector":{},"ingress":{"defaultAction":"Allow","pass":[{"peers":[{"clusterSelector":{"matchLabels":{"env":"dev"}}}]}]}}`)
	b := tiered("b", `{"tier":"Admin","priority":2,"podSelector":{},"ingress":{"allow":[{}]}}`)
	ns := policyOf(KindNetworkPolicy, "shop", "ns", `{"podSelector":{},"ingress":[]}`)
	for _, tt := range []struct {
		west map[string]string
		want Verdict
		by   string
	}{{map[string]string{"env": "dev"}, Deny, "ns"}, {map[string]string{"env": "prod"}, Allow, "b"}, {nil, Deny, "a"}} {
		w := smallWorld(a.rec)
		w.Policies = []*Model{a, b, ns}
		if w.Clusters["west"] = tt.west; tt.west == nil {
			delete(w.Clusters, "west")
		}
		_, k := build(w)
		why := NewReference(w).Explain(tcp80(web, farWeb, Ingress))
		if why.Verdict != tt.want || why.Rule.Name != tt.by {
			t.Errorf("west is %v: %s", tt.west, &why)
		}
		if got := k.decide(tcp80(web, farWeb, Ingress)).Decision; got != why.Decision {
			t.Errorf("west is %v: the maps say %+v, the reference %+v", tt.west, got, why.Decision)
		}
	}
}
