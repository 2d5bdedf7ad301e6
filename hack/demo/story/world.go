// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package story tells Fairlead's demo, one checked step after the other, on two real clusters that hack/lab brings up.
// The demo prints it for a person; test/e2e runs the same steps and fails where the demo would.
//
// A step says what it is about to show, does it, prints the real output, and returns an error that names what was
// expected, what was seen and where to look.
package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
)

// Clusters of the story. East runs the reference bridge CNI, west our own plugin.
const (
	East = "east"
	West = "west"
)

// World is the lab instance that the story happens in.
type World struct {
	Root     string // the repository
	Instance string
	Out      io.Writer
	lab      string // the lab command, built once
	plugin   string // kubectl-fairlead, built once
	started  time.Time
}

// NewWorld describes the world of an instance; nothing is started.
func NewWorld(root, instance string, out io.Writer) *World {
	return &World{
		Root: root, Instance: instance, Out: out, started: time.Now(),
		lab:    filepath.Join(root, "bin", "lab"),
		plugin: filepath.Join(root, "bin", "kubectl-fairlead"),
	}
}

// Title begins a chapter.
func (w *World) Title(format string, args ...any) {
	fmt.Fprintf(w.Out, "\n── %s  [%s]\n", fmt.Sprintf(format, args...), time.Since(w.started).Round(100*time.Millisecond))
}

// Say narrates.
func (w *World) Say(format string, args ...any) {
	fmt.Fprintf(w.Out, "   %s\n", fmt.Sprintf(format, args...))
}

// Show prints real output, indented.
func (w *World) Show(output string) {
	for line := range strings.Lines(strings.TrimRight(output, "\n") + "\n") {
		fmt.Fprintf(w.Out, "     │ %s", line)
	}
}

// Passed states what was checked.
func (w *World) Passed(format string, args ...any) {
	fmt.Fprintf(w.Out, "   ✓ %s\n", fmt.Sprintf(format, args...))
}

// run executes a command and returns what it printed, standard error after standard output.
func (w *World) run(ctx context.Context, name string, args ...string) (string, error) {
	return w.runInput(ctx, "", name, args...)
}

func (w *World) runInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = w.Root
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err != nil {
		return out.String() + problems.String(), fmt.Errorf("%s %s: %w: %s",
			filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// Lab runs a verb of the lab command on this instance.
func (w *World) Lab(ctx context.Context, verb string, args ...string) (string, error) {
	return w.run(ctx, w.lab, append([]string{verb, "--instance", w.Instance}, args...)...)
}

// labLive is Lab with its progress shown as it comes.
func (w *World) labLive(ctx context.Context, verb string, args ...string) error {
	cmd := exec.CommandContext(ctx, w.lab, append([]string{verb, "--instance", w.Instance}, args...)...)
	cmd.Dir = w.Root
	cmd.Stdout, cmd.Stderr = w.Out, w.Out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab %s: %w", verb, err)
	}
	return nil
}

// Kubectl runs kubectl against a cluster.
func (w *World) Kubectl(ctx context.Context, cluster string, args ...string) (string, error) {
	return w.Lab(ctx, "kubectl", append([]string{"--cluster", cluster, "--"}, args...)...)
}

// Apply feeds a manifest to a cluster.
func (w *World) Apply(ctx context.Context, cluster, manifest string) error {
	_, err := w.runInput(ctx, manifest, w.lab, "kubectl", "--instance", w.Instance, "--cluster", cluster, "--",
		"apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// OnNode runs a command in the namespaces of a node, a cluster's router ("east"), "wan" or "hub".
func (w *World) OnNode(ctx context.Context, node string, argv ...string) (string, error) {
	return w.Lab(ctx, "exec", append([]string{"--node", node, "--"}, argv...)...)
}

// Sample runs the sample client in a pod of a Deployment of namespace starwars.
func (w *World) Sample(ctx context.Context, cluster, deployment string, args ...string) (string, error) {
	return w.Kubectl(ctx, cluster, append([]string{"exec", "-n", "starwars", "deploy/" + deployment, "--", "/sample"}, args...)...)
}

// Plugin runs kubectl-fairlead with every cluster's kubeconfig.
func (w *World) Plugin(ctx context.Context, args ...string) (string, error) {
	for _, cluster := range []string{East, West} {
		path, err := w.Kubeconfig(ctx, cluster)
		if err != nil {
			return "", err
		}
		args = append(args, "--kubeconfig", path)
	}
	return w.run(ctx, w.plugin, args...)
}

// Kubeconfig is the path of a cluster's kubeconfig, usable from the root namespace.
func (w *World) Kubeconfig(ctx context.Context, cluster string) (string, error) {
	out, err := w.Lab(ctx, "kubeconfig", "--cluster", cluster)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(out), nil
}

// StateDir is where the lab keeps this instance's logs and keys.
func (w *World) StateDir() string {
	base := os.Getenv("FAIRLEAD_STATE")
	if base == "" {
		base = "/var/lib/fairlead-lab"
	}
	return filepath.Join(base, w.Instance)
}

// Eventually repeats check until it passes, and gives back how long that took; after patience, the last error.
func Eventually(ctx context.Context, patience time.Duration, check func(context.Context) error) (time.Duration, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return time.Since(begin), nil
		}
		// What the deadline cut short says less than the failure before it.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return time.Since(begin), fmt.Errorf("not within %s: %w", patience, last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Unexpected is the error of a check: what was wanted, what was seen, where to look.
func Unexpected(wanted, seen, look string) error {
	return errors.New("expected " + wanted + "\nsaw: " + strings.TrimSpace(seen) + "\nlook: " + look)
}

// nodes of a cluster, as the lab names them.
func nodes(cluster string) []string { return []string{cluster + "-1", cluster + "-2"} }

// gitURL is the Git server as the root namespace reaches it; it carries the instance's index.
func (w *World) gitURL() (string, error) {
	lab, err := instance.Open(w.Instance)
	if err != nil {
		return "", fmt.Errorf("open lab instance %s: %w", w.Instance, err)
	}
	return "http://" + lab.Topology.UplinkGit().String(), nil
}
