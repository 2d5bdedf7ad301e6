// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// Older verifiers prune less: what takes a new kernel 75,000 instructions took
// 6.1 more than the million it allows. This keeps the distance.
const maxVerified = 50_000

func TestVerifierHasLittleToDo(t *testing.T) {
	f := newFixture(t)
	for name, field := range f.progs.fields() {
		info, err := field.Interface().(*ebpf.Program).Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			t.Fatalf("the kernel doesn't say how much it verified of %s", name)
		}
		t.Logf("%s: %d instructions verified", name, n)
		if n > maxVerified {
			t.Errorf("%s: %d instructions verified, more than %d", name, n, maxVerified)
		}
	}
}
