// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"testing"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func TestOwnersKeepNodesApart(t *testing.T) {
	node := func(key string, addresses ...string) *recordv1.Record {
		return &recordv1.Record{Payload: &recordv1.Record_Node{Node: &recordv1.Node{WireguardPublicKey: key, Addresses: addresses}}}
	}
	o := NewOwners()
	for i, step := range []struct {
		key  string
		rec  *recordv1.Record // nil: dropped
		want Reason
	}{
		{"east/nodes/a", node("K1", "192.168.1.1"), ""},
		{"east/nodes/b", node("", "192.168.1.2"), ""},
		{"east/nodes/c", node("", "192.168.1.3"), ""}, // no key yet is nobody's
		{"west/nodes/a", node("K1", "192.168.2.1"), ReasonDuplicate},
		{"west/nodes/a", node("K2", "192.168.2.1", "192.168.1.1"), ReasonDuplicate},
		{"west/nodes/a", node("K2", "192.168.2.1"), ""},
		{"west/nodes/a", node("K1", "192.168.2.1"), ReasonDuplicate}, // keeps K2
		{"east/nodes/b", node("K2", "192.168.1.2"), ReasonDuplicate},
		{"east/nodes/a", node("K3", "192.168.1.1"), ""}, // rotated: K1 is free
		{"west/nodes/a", node("K1", "192.168.2.1"), ""},
		{"west/nodes/a", nil, ""},
		{"east/nodes/b", node("K1", "192.168.2.1"), ""},
		{"east/services/x/y", &recordv1.Record{}, ""},
	} {
		if step.rec == nil {
			o.Drop(step.key)
			continue
		}
		err := o.Take(step.key, step.rec)
		if got := ReasonOf(err); (err != nil || step.want != "") && got != step.want {
			t.Errorf("step %d: %v, want %q", i, err, step.want)
		}
	}
}
