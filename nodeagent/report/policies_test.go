// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func TestPoliciesGoUp(t *testing.T) {
	s := State{Policies: []Policy{{Key: "k", Revision: "1", Error: "broken", Warning: strings.Repeat("w", 2*maxMessage)}}}
	want := []*relayv1.PolicyRealization{{Key: "k", Revision: "1", Error: "broken", Warning: strings.Repeat("w", maxMessage-3) + "..."}}
	if diff := cmp.Diff(want, s.Request().GetPolicies(), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
