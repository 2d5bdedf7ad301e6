// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
)

// Map says how full a map of the datapath is. Used counts the rows that the agent wants in it, also those that don't fit.
type Map struct {
	Name string `json:"name"`
	Used int    `json:"used"`
	Size int    `json:"size"`
}

// pressing is the share of a map from which on it is a problem: what comes next may not fit.
const pressing = 80 // percent

// MapsOf lists maps by how full they are, the fullest first.
func MapsOf(used map[string]int, sizes map[string]uint32) []Map {
	var out []Map
	for name, n := range used {
		if size, ok := sizes[name]; ok && size > 0 {
			out = append(out, Map{Name: name, Used: n, Size: int(size)})
		}
	}
	slices.SortFunc(out, func(a, b Map) int {
		return cmp.Or(cmp.Compare(b.Used*a.Size, a.Used*b.Size), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// MapPressure are the problems of maps that are nearly full, or full.
func MapPressure(maps []Map) []Problem {
	var out []Problem
	for _, m := range maps {
		if m.Used*100 < m.Size*pressing {
			break // they are sorted
		}
		text := "what comes next may not fit"
		if m.Used > m.Size {
			text = "what doesn't fit is closed"
		}
		out = append(out, Problem{Code: "map-pressure", Message: fmt.Sprintf(
			"map %s: %d rows of %d (%d%%), %s; raise it with --map-sizes=%s=%d",
			m.Name, m.Used, m.Size, m.Used*100/m.Size, text, m.Name, 2*max(m.Used, m.Size))})
	}
	return out
}
