// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// What a policy's author should know goes up with the policy: what is wrong with it, and what it can't do as it is written.
func TestPoliciesSayWhatIsWrongWithThem(t *testing.T) {
	w := newWorld(t, NewMemory())
	const key = "east/policies/NetworkPolicy/shop/p"
	set := func(spec string) Policy {
		w.feed(fmt.Sprintf(`+ {"cluster":"east","policy":{"kind":"NetworkPolicy","namespace":"shop","name":"p","spec_json":%q}}`,
			base64.StdEncoding.EncodeToString([]byte(spec))))
		w.step()
		return w.plan.Policies()[key]
	}
	const leftOut = `"matchLabels":{"statefulset.kubernetes.io/pod-name":"db-0"}`
	for _, tt := range []struct{ spec, problem, warning string }{
		{`{"podSelector":{}}`, "", ""},
		{`{"podSelector":{` + leftOut + `}}`, "", "label statefulset.kubernetes.io/pod-name"},
		{`{"podSelector":{` + leftOut + `},"ingress":[{"from":[{"podSelector":{` + leftOut + `}}]}]}`, "", "(and 1 more)"},
		{`{"podSelector":{` + leftOut + `},"ingress":[{"from":[{}]}]}`, "spec.ingress[0].from[0]", "label statefulset.kubernetes.io/pod-name"},
		{`{"podSelector":{}}`, "", ""},
	} {
		got := set(tt.spec)
		if !strings.Contains(got.Problem, tt.problem) || (got.Problem == "") != (tt.problem == "") {
			t.Errorf("%s: problem %q, want %q", tt.spec, got.Problem, tt.problem)
		}
		if !strings.Contains(got.Warning, tt.warning) || (got.Warning == "") != (tt.warning == "") {
			t.Errorf("%s: warning %q, want %q", tt.spec, got.Warning, tt.warning)
		}
	}
}
