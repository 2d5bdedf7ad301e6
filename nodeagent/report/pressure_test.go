// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"strings"
	"testing"
)

func TestMapPressure(t *testing.T) {
	maps := MapsOf(
		map[string]int{"calm": 79, "pressing": 80, "over": 130, "huge": 3_000_000_000, "unknown": 5},
		map[string]uint32{"calm": 100, "pressing": 100, "over": 100, "huge": 4_000_000_000, "unused": 7})
	var names []string
	for _, m := range maps {
		names = append(names, m.Name)
	}
	if want := []string{"over", "pressing", "calm", "huge"}; !slices.Equal(names, want) {
		t.Fatalf("maps = %v, want %v", names, want)
	}
	problems := MapPressure(maps)
	if len(problems) != 2 {
		t.Fatalf("problems = %v", problems)
	}
	for i, want := range []string{
		"map over: 130 rows of 100 (130%), what doesn't fit is closed; raise it with --map-sizes=over=260",
		"map pressing: 80 rows of 100 (80%), what comes next may not fit; raise it with --map-sizes=pressing=200",
	} {
		if !strings.Contains(problems[i].Message, want) {
			t.Errorf("problem %d: %s", i, problems[i].Message)
		}
	}
}
