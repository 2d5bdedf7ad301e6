// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import "testing"

func TestMetricIndexRoundTrip(t *testing.T) {
	for r := range ReasonCount {
		for h := range HookCount {
			gr, gh := MetricOf(MetricIndex(r, h))
			if gr != r || gh != h {
				t.Errorf("%s/%s became %s/%s", r, h, gr, gh)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	for r, want := range map[Reason]bool{
		ReasonForwarded: false, ReasonAudited: false, ReasonPolicyDenied: true, ReasonUnrelated: true,
	} {
		if r.IsDrop() != want {
			t.Errorf("%s: drop %v", r, r.IsDrop())
		}
	}
	if got := ReasonEncryptionNotReady.String(); got != "encryption-not-ready" {
		t.Errorf("name %q", got)
	}
	if got := Reason(60).String(); got != "60" {
		t.Errorf("an unknown reason is %q", got)
	}
}
