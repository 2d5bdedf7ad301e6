// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import "testing"

func TestContentIsOfOneStateOfOneObject(t *testing.T) {
	base := Policy{PolicyKind: "NetworkPolicy", Namespace: "shop", Name: "web", Spec: []byte(`{"a":1}`), UID: "u1", Generation: 1}
	content := func(change func(*Policy)) string {
		p := base
		change(&p)
		return p.Content()
	}
	is := base.Content()
	for name, change := range map[string]func(*Policy){
		"another spec":             func(p *Policy) { p.Spec = []byte(`{"a":2}`) },
		"another generation":       func(p *Policy) { p.Generation = 2 },
		"another object":           func(p *Policy) { p.UID = "u2" },
		"audited by its namespace": func(p *Policy) { p.Mode.ByNamespace = true },
		"audited by its cluster":   func(p *Policy) { p.Mode.ByCluster = true },
		"what moved between parts": func(p *Policy) { p.UID, p.Generation = "u1"+"1", 0 },
	} {
		if content(change) == is {
			t.Errorf("%s has the same content", name)
		}
	}
	if got := content(func(p *Policy) { p.Provenance.Revision = "r" }); got != is {
		t.Error("the content depends on where the policy came from")
	}
	if content(func(p *Policy) { p.Mode.ByNamespace = true }) != content(func(p *Policy) { p.Mode = Mode{ByNamespace: true, ByCluster: true} }) {
		t.Error("the content depends on who has the policy audited")
	}
	if got := content(func(p *Policy) { p.Mode.Problem = "a typo" }); got != is {
		t.Error("the content depends on what isn't heeded")
	}
	if SpecContent(base.Spec) == SpecContent([]byte(`{"a":2}`)) {
		t.Error("two specs have the same content")
	}
}
