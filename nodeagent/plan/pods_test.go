// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// What podFacts counts equals counting all pods anew, after any changes.
func TestPodFactsEqualACount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newPodFacts(newPolicyPlan(Config{Cluster: "east", Limits: limits}, NewMemory().Policy, service.NewPlanner(service.Config{})), nil)
		pods, local := map[string]*record.Endpoint{}, map[string]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			name := fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "pod"))
			before, wasLocal := pods[name], local[name]
			var now *record.Endpoint
			isLocal := rapid.Bool().Draw(t, "local")
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				delete(pods, name)
				delete(local, name)
				isLocal = false
			} else {
				now = &record.Endpoint{
					Name: name, Identity: uint32(1<<16 | 256 + rapid.IntRange(0, 2).Draw(t, "identity")),
					NamedPorts: record.NewNamedPorts(rapid.MapOf(rapid.SampledFrom([]string{"http/TCP", "dns/UDP"}), rapid.Uint16Range(1, 3)).Draw(t, "ports")),
				}
				pods[name], local[name] = now, isLocal
			}
			f.change(wasLocal, isLocal, before, now)
		}
		subjects, named := map[uint32]int{}, map[uint32]map[string][]uint16{}
		for name, e := range pods {
			if local[name] {
				subjects[e.Identity]++
			}
			for port, number := range e.NamedPorts.All() {
				if named[e.Identity] == nil {
					named[e.Identity] = map[string][]uint16{}
				}
				if !slices.Contains(named[e.Identity][port], number) {
					named[e.Identity][port] = append(named[e.Identity][port], number)
				}
				slices.Sort(named[e.Identity][port])
			}
		}
		if !maps.Equal(f.subjects, subjects) {
			t.Fatalf("subjects %v, want %v", f.subjects, subjects)
		}
		got := map[uint32]map[string][]uint16{}
		for id := range f.named {
			got[id] = f.numbers(id)
		}
		if !reflect.DeepEqual(got, named) {
			t.Fatalf("named ports %v, want %v", got, named)
		}
		sets := map[record.NamedPorts]bool{}
		for _, e := range pods {
			if e.NamedPorts != (record.NamedPorts{}) {
				sets[e.NamedPorts] = true
			}
		}
		if len(f.sets) != len(sets) {
			t.Fatalf("%d sets of ports are held, want %d", len(f.sets), len(sets))
		}
	})
}
