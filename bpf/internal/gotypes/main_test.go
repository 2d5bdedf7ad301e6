// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"
)

// The committed Go types are those of the committed maps object.
func TestTypesAreUpToDate(t *testing.T) {
	want, err := generate("../../maps_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../types_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("types_gen.go is not what maps_bpfel.o says: run go generate ./bpf")
	}
}

func TestConstName(t *testing.T) {
	for c, want := range map[string]string{
		"FL_REASON_NO_ENDPOINT":  "ReasonNoEndpoint",
		"FL_CT_BY_POD":           "CTByPod",
		"FL_KIND_ANY_PEER_PROTO": "KindAnyPeerProto",
	} {
		if got := constName(c); got != want {
			t.Errorf("%s became %s, want %s", c, got, want)
		}
	}
}
