// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e asserts what the demo claims, on two real Kubernetes clusters of its own, and what bad input does to
// them. It needs root and the parts that `go run ./hack/lab tools` installs and builds.
package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/demo/story"
)

// instance is the lab instance of this test, beside the demo's.
const instance = "e2e"

// writer sends the story's narration to the test's log, line by line.
type writer struct{ t *testing.T }

func (w writer) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		w.t.Log(strings.TrimRight(line, "\n"))
	}
	return len(p), nil
}

func TestStory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the end-to-end tests make network namespaces and containers: run them as root")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	world := story.NewWorld(root, instance, writer{t})
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	if err := world.BuildLab(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now; and what a test started must go, whatever happened to it.
		down, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if t.Failed() {
			collect(down, t, world)
		}
		if err := world.Down(down); err != nil {
			t.Errorf("take the clusters down: %v", err)
		}
	})
	for _, steps := range [][]story.Step{story.Setup, story.Story, firstPacket, badInput} {
		for _, step := range steps {
			world.Out = writer{t}
			if !t.Run(step.Name, func(t *testing.T) {
				world.Out = writer{t}
				if err := step.Do(world, ctx); err != nil {
					t.Fatal(err)
				}
			}) {
				t.FailNow() // every step needs the ones before it
			}
			world.Out = writer{t}
		}
	}
}

// collect prints what an engineer would ask for first.
func collect(ctx context.Context, t *testing.T, world *story.World) {
	for _, args := range [][]string{{"status"}, {"observe", "--verdict", "denied", "--last", "40"}} {
		out, err := world.Plugin(ctx, args...)
		t.Logf("kubectl fairlead %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
	for _, cluster := range []string{story.East, story.West} {
		for _, args := range [][]string{
			{"get", "pods", "-A", "-o", "wide"},
			{"get", "clustermesh,meshcluster,meshnode,policysource,meshnetworkpolicy", "-A", "-o", "wide"},
			{"logs", "-n", "fairlead-system", "deploy/fairlead-operator", "--tail=60"},
			{"logs", "-n", "fairlead-system", "ds/fairlead-nodeagent", "--tail=60", "--prefix", "--all-pods"},
			{"get", "meshnodes", "-o", "yaml"},
		} {
			out, err := world.Kubectl(ctx, cluster, args...)
			t.Logf("%s: kubectl %s (%v)\n%s", cluster, strings.Join(args, " "), err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, "dmesg").Output(); err == nil && len(out) > 4000 {
		t.Logf("dmesg\n%s", out[len(out)-4000:])
	}
}
