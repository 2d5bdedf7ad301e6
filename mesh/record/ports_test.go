// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNamedPorts(t *testing.T) {
	numbers := rapid.MapOfN(rapid.StringMatching(`[a-z0-9-]{1,15}/(TCP|UDP|SCTP)`), rapid.Uint16Min(1), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		a, b := numbers.Draw(t, "a"), numbers.Draw(t, "b")
		p, q := NewNamedPorts(a), NewNamedPorts(b)
		if got := maps.Collect(p.All()); !maps.Equal(got, a) {
			t.Fatalf("%v became %v", a, got)
		}
		var names []string
		for name := range p.All() {
			names = append(names, name)
		}
		if !slices.IsSorted(names) {
			t.Fatalf("%v is not ascending", names)
		}
		if (p == q) != maps.Equal(a, b) || NewNamedPorts(maps.Clone(a)) != p {
			t.Fatalf("%v and %v: equality is wrong", a, b)
		}
	})
}
