// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import "testing"

func TestLoadPrograms(t *testing.T) {
	m, _, err := OpenMaps("", nil)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer m.Close()
	p, err := LoadPrograms(m)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	p.Close()
}
