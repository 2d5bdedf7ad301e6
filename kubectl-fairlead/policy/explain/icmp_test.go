// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// Messages are judged by their type, which has another number in each family that the two ends have.
func TestExplainICMP(t *testing.T) {
	m := small(t)
	east := m.Clusters["east"]
	rec := *east.Policies[0].Record
	rec.Spec = []byte(`{"podSelector":{},"ingress":{"allow":[{"icmp":[{"type":"EchoRequest"},{"family":"IPv6","type":200}]}]}}`)
	east.Policies[0].Record, east.Policies[0].Model = &rec, policy.Parse(&rec)
	for key := range east.Nodes[0].Enforces {
		e := east.Nodes[0].Enforces[key]
		e.Content = rec.Content()
		east.Nodes[0].Enforces[key] = e
	}
	for i, p := range east.Pods[:2] {
		p.Addresses = append(p.Addresses, netip.MustParseAddr("fd00::"+string(rune('1'+i))))
	}
	for _, tt := range []struct {
		to   string
		want Verdict
		says string // of types and notes, or an error
	}{
		{"east/shop/api:icmp", Allowed, "EchoRequest"},
		{"east/shop/api:8/ICMP", Allowed, "not judged: ICMPv6"},
		{"east/shop/api:200/ICMP", Partly, "200"},
		{"[fd00::2]:200/ICMP", Allowed, "200"},
		{"10.1.0.2:200/ICMP", Denied, "200"},
		{"east/shop/api:TimestampRequest/ICMP", Denied, "not judged: ICMPv6"},
		{"east/shop/api:8080", Denied, ""},
		{"[fd00::2]:TimestampRequest/ICMP", "", "neither the name of a type"},
		{"[fd00::2]:8/ICMP", "", "is an error message"},
		{"svc/shop/api:icmp", "", "none of ICMP"},
	} {
		from, err := ParseEnd("east/shop/web")
		if err != nil {
			t.Fatal(err)
		}
		to, err := ParseTarget(tt.to)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Explain(m, from, to)
		if err != nil {
			if tt.want != "" || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v, want %s %q", tt.to, err, tt.want, tt.says)
			}
			continue
		}
		text := strings.Join(r.Notes, " ")
		for _, c := range r.Connections {
			text += " " + c.ICMPType
		}
		if r.Verdict != tt.want || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %s, %s; want %s with %q", tt.to, r.Verdict, text, tt.want, tt.says)
		}
	}
}
