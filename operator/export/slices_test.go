// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"testing"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// bigSlice has n endpoints with the names that large clusters give.
func bigSlice(n int) []string {
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("10.1.%d.%d", 1+i/250, 1+i%250)
	}
	return addrs
}

func exporting(t *testing.T) *State {
	t.Helper()
	s := NewState("v1")
	s.SetMesh(testMesh())
	s.SetService("shop", "web", testService("web", map[string]string{v1alpha1.AnnotationGlobal: "true"}))
	return s
}

// A backend that changes in a slice of Kubernetes' default size, or of the largest, costs less than 1 KiB in the store.
func TestOneBackendCostsAKibibyte(t *testing.T) {
	for _, n := range []int{8, 9, 100, 1000} {
		s := exporting(t)
		eps := testSlice("web-1", "web", bigSlice(n)...)
		for i := range eps.Endpoints {
			node := fmt.Sprintf("ip-10-1-%d-%d.eu-central-1.compute.internal", i/20, i%20)
			zone := "eu-central-1a"
			eps.Endpoints[i].NodeName, eps.Endpoints[i].Zone = &node, &zone
		}
		s.SetSlice("shop", "web-1", eps)
		s.Flush()
		changed := eps.DeepCopy()
		ready := false
		changed.Endpoints[n/2].Conditions.Ready = &ready
		s.SetSlice("shop", "web-1", changed)
		d := s.Flush()
		if len(d.Published.Put) != 1 || len(d.Published.Delete) != 0 {
			t.Errorf("%d backends: one that changes puts %d records and deletes %d", n, len(d.Published.Put), len(d.Published.Delete))
		}
		for key, data := range d.Published.Put {
			if bytes := len(key) + len(data); bytes > 1536 || n <= 100 && bytes > 1024 {
				t.Errorf("%d backends: one that changes costs %d bytes", n, bytes)
			}
		}
	}
}

// A slice that grows beyond one record is there in parts before the whole goes, and every endpoint is in one part.
func TestASliceIsCutAndJoined(t *testing.T) {
	s := exporting(t)
	s.SetSlice("shop", "web-1", testSlice("web-1", "web", bigSlice(8)...))
	d := s.Flush()
	if _, whole := d.Published.Put["east/slices/shop/web-1"]; !whole {
		t.Fatalf("8 endpoints don't travel whole: %v", keysOf(d.Published.Put))
	}
	s.SetSlice("shop", "web-1", testSlice("web-1", "web", bigSlice(200)...))
	d = s.Flush()
	last := d.Local[len(d.Local)-1]
	if last.Key != "east/slices/shop/web-1" || last.Record != nil {
		t.Errorf("the whole doesn't go after the parts came, but %s", last.Key)
	}
	seen := map[string]int{}
	for _, c := range d.Local {
		for _, b := range c.Record.GetBackendSlice().GetBackends() {
			seen[b.Addresses[0]]++
		}
	}
	for _, addr := range bigSlice(200) {
		if seen[addr] != 1 {
			t.Errorf("endpoint %s is in %d parts", addr, seen[addr])
		}
	}
	s.SetSlice("shop", "web-1", testSlice("web-1", "web", bigSlice(3)...))
	s.Flush()
	if got := keysOf(s.Published()); len(got) != 3 {
		t.Errorf("published after it shrank: %v", got) // the cluster, the service, the slice
	}
}

func keysOf(set record.Set) (keys []string) {
	for key := range set {
		keys = append(keys, key)
	}
	return keys
}
