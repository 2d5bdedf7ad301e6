// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// indexesModel does what assignIndexes does, with few indexes, so that they run out.
func indexesModel(previous map[string]uint16, peers []string, limit uint16) map[string]uint16 {
	out, used, stale := map[string]uint16{}, map[uint16]bool{}, map[uint16]bool{}
	for _, key := range peers {
		if i := previous[key]; i != 0 && !used[i] {
			out[key], used[i] = i, true
		}
	}
	for _, i := range previous {
		stale[i] = true
	}
	next := func(taken ...map[uint16]bool) uint16 {
		for i := uint16(1); i <= limit; i++ {
			if !slices.ContainsFunc(taken, func(m map[uint16]bool) bool { return m[i] }) {
				return i
			}
		}
		return 0
	}
	for _, key := range peers {
		if out[key] != 0 {
			continue
		}
		i := next(used, stale)
		if i == 0 {
			i = next(used)
		}
		if i != 0 {
			out[key], used[i] = i, true
		}
	}
	return out
}

// However few indexes there are, they are given as assignIndexes would, peers that are remembered and haven't come yet
// included.
func TestIndexesRunOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := uint16(rapid.IntRange(1, 5).Draw(t, "limit"))
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("b/n%d", rapid.IntRange(0, 7).Draw(t, "node")) })
		x := newIndexes(rapid.MapOf(key, rapid.Uint16Range(0, limit)).Draw(t, "remembered"))
		x.limit = limit
		cluster := &clusterState{name: "b", own: true}
		there := map[string]*nodeState{}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			previous := x.all()
			for _, k := range rapid.SliceOfNDistinct(key, 1, 4, rapid.ID).Draw(t, "changed") {
				if n := there[k]; n == nil {
					there[k] = &nodeState{cluster: cluster, name: k[2:]}
				} else if delete(there, k); n.index != 0 {
					x.release(n)
				}
			}
			var want []*nodeState
			for _, n := range there {
				if n.index == 0 {
					want = append(want, n)
				}
			}
			slices.SortFunc(want, (*nodeState).compare)
			without := x.assign(want)
			x.endStep()

			got := map[string]uint16{}
			for k, n := range there {
				if n.index != 0 {
					got[k] = n.index
				}
			}
			if model := indexesModel(previous, slices.Sorted(maps.Keys(there)), limit); !maps.Equal(got, model) {
				t.Fatalf("got %v, want %v", got, model)
			}
			if len(got)+len(without) != len(there) {
				t.Fatalf("%d of %d have none", len(without), len(there))
			}
		}
	})
}
