// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/bpf"
	meshpolicy "github.com/fairlead-mesh/fairlead/mesh/policy"
)

// Lines are handed to the kernel as the engine makes them, so both must mark what is outside alike. What is doubted about a set
// is doubted about its outside, too.
func TestLinesAboutWhatIsOutside(t *testing.T) {
	if meshpolicy.SetOutside != bpf.SetOutside || meshpolicy.SetCount > int(meshpolicy.SetOutside) {
		t.Errorf("the engine's mark is %#x, the datapath's %#x", meshpolicy.SetOutside, bpf.SetOutside)
	}
	row := chunks([]meshpolicy.Line{{Set: 5 | meshpolicy.SetOutside, Verdict: meshpolicy.Allow}})[0].Line[0]
	if row.Set != 5|bpf.SetOutside {
		t.Errorf("the row is %+v", row)
	}
	var sets bpf.ClassSets
	sets.Sets[0] = 1 << 5
	if d := (doubt{sets: sets}); !d.about([]bpf.PolicyLine{row}) {
		t.Error("there is no doubt about a line whose set is in doubt")
	}
}
