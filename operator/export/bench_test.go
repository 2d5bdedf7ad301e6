// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// BenchmarkOneBackend: one backend of a slice changes, in slices of the usual and of the largest size.
func BenchmarkOneBackend(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := NewState("v1")
			s.SetMesh(testMesh())
			s.SetService("shop", "web", testService("web", nil))
			full := testSlice("web-1", "web", bigSlice(n)...)
			less := full.DeepCopy()
			less.Endpoints = less.Endpoints[1:]
			versions := []*discoveryv1.EndpointSlice{full, less}
			s.SetSlice("shop", "web-1", full)
			s.Flush()
			b.ReportAllocs()
			for i := 1; b.Loop(); i++ {
				s.SetSlice("shop", "web-1", versions[i%2])
				if d := s.Flush(); len(d.Local) != 1 {
					b.Fatalf("%d records changed", len(d.Local))
				}
			}
		})
	}
}
