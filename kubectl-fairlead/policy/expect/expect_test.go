// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/manifest"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte("clusters: {east: {podCIDRs: [10.0.0.0/8]}}\npods: [{name: east/a/b, ports: {http: 80}}]\nexpect: [{from: east/a/b, to: 'east/a/b:80', verdict: allowed}]\n"))
	f.Add([]byte("expect:\n- from: a\n---\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, problems := Parse("x_test.yaml", manifest.Split(data))
		for _, p := range problems {
			if p.Line < 1 || p.Message == "" {
				t.Errorf("a problem without a place: %+v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		if len(file.Expect) == 0 {
			t.Error("nothing is expected, and nothing wrong with that")
		}
		Run(Tree{Files: []File{file}})
	})
}

func TestFoldersOfPolicies(t *testing.T) {
	for _, tt := range []struct {
		from    string
		folders []string
		file    string
		want    bool
	}{
		{"p/a_test.yaml", nil, "anywhere.yaml", true},
		{"p/a_test.yaml", []string{"east"}, "p/east/x.yaml", true},
		{"p/a_test.yaml", []string{"east"}, "p/easter/x.yaml", false},
		{"p/a_test.yaml", []string{"../common"}, "common/x.yaml", true},
		{"a_test.yaml", []string{"."}, "x.yaml", true},
		{"/abs/a_test.yaml", []string{"x.yaml"}, "/abs/x.yaml", true},
	} {
		if got := has(tt.from, tt.folders, tt.file); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}
