// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
)

func TestOpenMapsCreatesEveryMap(t *testing.T) {
	m, replaced, err := OpenMaps("", nil)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer m.Close()
	if len(replaced) != 0 {
		t.Errorf("replaced = %v on a fresh start", replaced)
	}
	cfg := Config{PolicyEpoch: 7, TunnelMTU: 1420}
	if err := m.Config.Put(uint32(0), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := m.Policy.Put(&PolicyKey{Subject: 1000, Port: 80, PortPrefix: 16, Proto: 6, Dir: DirIngress},
		&PolicyEntry{RuleID: 1, Verdict: VerdictAllow}); err != nil {
		t.Fatal(err)
	}
}
