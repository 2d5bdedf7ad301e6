// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// A kernel that answers ctnetlink has connection tracking afterwards; an agent on one that doesn't says so.
func TestTrackingIsLoadedBeforeProgramsAre(t *testing.T) {
	answered := loadTracking()
	has, err := bpf.HasTracking()
	if err != nil {
		t.Fatal(err)
	}
	if answered == nil && !has {
		t.Error("ctnetlink answered, and programs can't ask connection tracking")
	}
	var out bytes.Buffer
	if err := prepareTracking(slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	if warned := out.Len() > 0; warned == has {
		t.Errorf("connection tracking: %t, and the log says %q", has, out.String())
	}
}

// So does one on a kernel that hides where checksums are to be written.
func TestLateChecksumsAreWarnedOf(t *testing.T) {
	has, err := bpf.HasKernelPackets()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := warnOfLateChecksums(slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	if warned := out.Len() > 0; warned == has {
		t.Errorf("kernel packets: %t, and the log says %q", has, out.String())
	}
}
