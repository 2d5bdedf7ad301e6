// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// What a raw socket sends to a ClusterIP kube-proxy translates, and it knows the local cluster's backends alone. Policy judges such a
// packet by the frontend's backends (bpf/lib/leads.h): those that kube-proxy may choose must be among them, wherever sockets are led to.
func TestReviewKubeProxysBackendsAreJudged(t *testing.T) {
	for name, defs := range map[string][]Definition{
		"remote is preferred": {
			def("east", svc(global, affine(record.AffinityRemote)), slice("a", "10.1.0.1")), def("west", svc(global), slice("b", "10.2.0.1")),
		},
		"the local ones terminate": {
			def("east", svc(global), slice("a", "10.1.0.1 draining")), def("west", svc(global), slice("b", "10.2.0.1")),
		},
	} {
		f := Resolve("east", defs).Frontends[0]
		if !slices.ContainsFunc(f.Backends, func(b Backend) bool { return b.Cluster == "east" }) {
			t.Errorf("%s: kube-proxy leads %s to 10.1.0.1, and policy asks about %v", name, f.Addr, f.Backends)
		}
	}
}
