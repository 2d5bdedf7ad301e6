// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"strings"
	"testing"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func TestParseAnnotations(t *testing.T) {
	const none, local, remote = recordv1.Affinity_AFFINITY_NONE, recordv1.Affinity_AFFINITY_LOCAL, recordv1.Affinity_AFFINITY_REMOTE
	type a = map[string]string
	tests := []struct {
		name     string
		in       a
		want     Settings
		warnings []string // parts, one a warning
	}{
		{"nothing", nil, Settings{}, nil},
		{"strangers", a{"example.com/global": "true", "fairlead.dev/source-url": "https://…"}, Settings{}, nil},
		{"global", a{"fairlead.dev/global": "true"}, Settings{Global: true, Shared: true}, nil},
		{"global in another case", a{"fairlead.dev/global": "TRUE"}, Settings{Global: true, Shared: true}, nil},
		{"Cilium's name", a{"service.cilium.io/global": "True"}, Settings{Global: true, Shared: true}, nil},
		{"Cilium's older name", a{"io.cilium/global-service": "true"}, Settings{Global: true, Shared: true}, nil},
		{"ours wins", a{"fairlead.dev/global": "false", "service.cilium.io/global": "true"}, Settings{}, nil},
		{"the newer one wins", a{"service.cilium.io/global": "false", "io.cilium/global-service": "true"}, Settings{}, nil},
		{"not shared", a{"fairlead.dev/global": "true", "io.cilium/shared-service": "false"}, Settings{Global: true}, nil},
		{"shared alone", a{"fairlead.dev/shared": "true"}, Settings{}, []string{"fairlead.dev/shared has no effect"}},
		{"affinity", a{"service.cilium.io/global": "true", "io.cilium/service-affinity": "Local"}, Settings{true, true, local}, nil},
		{"affinity remote", a{"fairlead.dev/global": "true", "fairlead.dev/affinity": "remote", "service.cilium.io/affinity": "local"}, Settings{true, true, remote}, nil},
		{"affinity none", a{"fairlead.dev/global": "true", "fairlead.dev/affinity": "none"}, Settings{true, true, none}, nil},
		{"affinity unknown", a{"fairlead.dev/global": "true", "fairlead.dev/affinity": "nearest"}, Settings{true, true, none}, []string{`fairlead.dev/affinity: "nearest"`}},
		{"affinity alone", a{"fairlead.dev/affinity": "local"}, Settings{}, []string{"fairlead.dev/affinity has no effect"}},
		{"global is no bool", a{"fairlead.dev/global": "yes", "service.cilium.io/global": "true"}, Settings{}, []string{`fairlead.dev/global: "yes"`}},
		{"shared is no bool", a{"fairlead.dev/global": "true", "fairlead.dev/shared": "no"}, Settings{Global: true, Shared: true}, []string{`fairlead.dev/shared: "no"`}},
		{"misspelled", a{"fairlead.dev/globl": "true"}, Settings{}, []string{"fairlead.dev/globl is unknown"}},
		{"not there yet", a{"fairlead.dev/global": "true", "fairlead.dev/prefer-clusters": "west"}, Settings{Global: true, Shared: true}, []string{"not supported by this version"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings := ParseAnnotations(tt.in)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(warnings) != len(tt.warnings) {
				t.Fatalf("warnings: %q, want %q", warnings, tt.warnings)
			}
			for i, part := range tt.warnings {
				if !strings.Contains(warnings[i], part) {
					t.Errorf("warning %q does not say %q", warnings[i], part)
				}
			}
		})
	}
}

func FuzzParseAnnotations(f *testing.F) {
	f.Add("fairlead.dev/global", "true", "fairlead.dev/affinity", "local")
	f.Add("io.cilium/global-service", "TRUE", "fairlead.dev/x", "\x00")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		s, _ := ParseAnnotations(map[string]string{k1: v1, k2: v2})
		if !s.Global && (s.Shared || s.Affinity != recordv1.Affinity_AFFINITY_NONE) {
			t.Errorf("settings of a service that is not global: %+v", s)
		}
	})
}
