// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/internal/fixture"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var update = flag.Bool("update", false, "write what is rendered into testdata")

// golden compares with a file that people review; go test ./kubectl-fairlead/render -update writes it anew.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is rendered:\n%s", path, got)
	}
}

func broken() evaluate.Snapshot {
	s := fixture.Healthy("east")
	s.Context = "admin@east"
	west := &s.Nodes[0].Status.Tunnels[1]
	west.Ready, west.Connected = 0, 0
	west.Broken = []v1alpha1.BrokenTunnel{{Node: "west-1", LastHandshakeTime: west.LatestHandshakeTime}, {Node: "west-2"}}
	s.Nodes[1].Status.LastReportTime = &metav1.Time{Time: fixture.Now.Add(-4 * time.Minute)}
	s.Services[0].Annotations["fairlead.dev/affinity"] = "lokal"
	s.Sources[0].Status.Conditions = fixture.Conditions("Ready", "False", "BuildFailed", "policies/a.yaml: line 3:\nmapping values are not allowed here")
	return s
}

func TestStatus(t *testing.T) {
	unreachable := evaluate.Snapshot{Context: "west", Taken: fixture.Now, Unreachable: "dial tcp 192.0.2.1:6443: connect: connection refused"}
	for _, c := range []struct {
		file, format string
		colour       bool
		snapshots    []evaluate.Snapshot
	}{
		{"healthy.txt", "text", false, []evaluate.Snapshot{fixture.Healthy("east"), fixture.Healthy("west")}},
		{"broken.txt", "text", false, []evaluate.Snapshot{broken(), unreachable}},
		{"broken.json", "json", false, []evaluate.Snapshot{broken()}},
		{"broken.yaml", "yaml", false, []evaluate.Snapshot{unreachable}},
	} {
		t.Run(c.file, func(t *testing.T) {
			var out bytes.Buffer
			if err := render.Status(&out, c.format, c.colour, evaluate.Evaluate(c.snapshots)); err != nil {
				t.Fatal(err)
			}
			golden(t, c.file, out.Bytes())
		})
	}
}

// Colour adds to the words and replaces none.
func TestColourOnlyAdds(t *testing.T) {
	report := evaluate.Evaluate([]evaluate.Snapshot{broken()})
	var plain, colourful bytes.Buffer
	if err := render.Status(&plain, "text", false, report); err != nil {
		t.Fatal(err)
	}
	if err := render.Status(&colourful, "text", true, report); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsRune(plain.String(), '\x1b') {
		t.Error("without colour there is an escape sequence")
	}
	stripped := colourful.String()
	for _, code := range []string{"0", "1", "2", "31", "32", "33"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+code+"m", "")
	}
	if stripped != plain.String() {
		t.Errorf("with colour the words differ:\n%s", stripped)
	}
}
