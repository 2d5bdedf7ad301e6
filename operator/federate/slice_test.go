// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

func TestTheSizeOfASlice(t *testing.T) {
	for _, c := range []struct {
		name            string
		elements, bytes int
		want            int
	}{
		{"none", 0, 0, 0},
		{"small ones", 1000, 100, sliceSize},
		{"few small ones", 3, 100, 3},
		{"large ones", 1000, 100 << 10, 2},
		{"one that is larger than a slice", 2, 2 * sliceBytes, 1},
	} {
		if got := sliceOf(make([]byte, c.elements), sliceSize, func(byte) int { return c.bytes }); got != c.want {
			t.Errorf("%s: a slice has %d, want %d", c.name, got, c.want)
		}
	}
}

// counting is a hub that notes how many changes come at a time: those of one slice.
type counting struct {
	*agents
	most, all int
}

func (c *counting) Apply(changes []*relayv1.Change) error {
	c.most, c.all = max(c.most, len(changes)), c.all+len(changes)
	return c.agents.Apply(changes)
}

// Wherever another cluster's records are gone through, however many and however large: slices are bounded by records and bytes.
func TestSlicesAreBoundedByRecordsAndBytes(t *testing.T) {
	const n = 9
	identities := func(size int) (out []*recordv1.Record) {
		labels := map[string]string{v1alpha1.LabelCluster: "west"}
		for i := 0; len(labels)*250 < size; i++ {
			labels[fmt.Sprintf("l%d", i)] = strings.Repeat("x", 240)
		}
		for i := range uint32(n) {
			rec := &recordv1.Identity{Id: 2<<16 | 256 + i, Labels: labels}
			out = append(out, &recordv1.Record{Cluster: "west", Payload: &recordv1.Record_Identity{Identity: rec}})
		}
		return out
	}
	nodes := func(cluster string) (out []*recordv1.Record) {
		for i := range n {
			out = append(out, node(cluster, fmt.Sprintf("n%d", i), "192.0.2.7", byte(i+1)))
		}
		return out
	}
	small, large, south := identities(0), identities(60<<10), meshCluster("south", 4, 0, "10.4.0.0/16")
	for name, tt := range map[string]struct {
		before func(*scene)
		does   func(*scene)
		slice  int
		want   int // changes at a time
	}{
		"many records that come":   {func(s *scene) { s.accept(west) }, func(s *scene) { s.put("west", small...) }, 2, 2},
		"large records that come":  {func(s *scene) { s.accept(west) }, func(s *scene) { s.put("west", large...) }, sliceSize, 4},
		"many of a backlog":        {func(s *scene) { s.put("west", small...) }, func(s *scene) { s.accept(west) }, 2, 2},
		"large ones of a backlog":  {func(s *scene) { s.put("west", large...) }, func(s *scene) { s.accept(west) }, sliceSize, 4},
		"many that are withdrawn":  {func(s *scene) { s.accept(west); s.put("west", small...) }, func(s *scene) { s.accept() }, 2, 2},
		"large that are withdrawn": {func(s *scene) { s.accept(west); s.put("west", large...) }, func(s *scene) { s.accept() }, sliceSize, 2}, // in the store and with agents
		"nodes in a range that became a cluster's": {
			func(s *scene) { s.accept(west); s.put("west", nodes("west")...) },
			func(s *scene) { s.accept(west, meshCluster("north", 3, 0, "192.0.2.0/24")) }, 2, 2,
		},
		"nodes whose keys became free": {
			func(s *scene) {
				s.accept(west, south)
				s.put("west", nodes("west")...)
				s.put("south", nodes("south")...)
				for i := range n {
					s.gone("west", fmt.Sprintf("west/nodes/n%d", i))
				}
			},
			func(s *scene) { s.intake.Cluster("south", store.ClusterState{Synced: true}) }, 2, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tt.before(s)
			hub := &counting{agents: s.agents}
			s.intake.hub, s.intake.slice = hub, tt.slice
			tt.does(s)
			if hub.all != n || hub.most != tt.want {
				t.Errorf("%d records in slices of up to %d, want %d in slices of %d", hub.all, hub.most, n, tt.want)
			}
		})
	}
}
