// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Conformance runs suites of network policy that others wrote on the demo's clusters, and writes what came out to
// docs/conformance: Kubernetes' own end-to-end tests, those of the ClusterNetworkPolicy API, and Cyclonus.
//
//	go run ./test/conformance [-suites networkpolicy,clusternetworkpolicy,cyclonus] [-clusters east,west] [-run REGEXP]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

const (
	instance = "demo"
	limit    = 60 * time.Minute // of a suite on a cluster
)

// suite is one that others wrote.
type suite struct {
	name  string
	title string
	about string // for the report
	// build makes what the suite runs, in dir.
	build func(ctx context.Context, dir string) error
	// images that its pods run, all of them with the agnhost of Kubernetes' sources.
	images []string
	// run runs it on a cluster; run limits the tests by a regular expression if it isn't empty. Tests that fail are no error.
	run func(ctx context.Context, c cluster, run string) (result, error)
}

// cluster is where a suite runs.
type cluster struct {
	name, kubeconfig string
	dir              string // with what was built
	out              string // for reports
	kubectl          string
}

var suites = []suite{kubernetes, clusterNetworkPolicy, cyclonus}

func main() {
	names := flag.String("suites", "networkpolicy,clusternetworkpolicy,cyclonus", "which suites")
	clusters := flag.String("clusters", "east,west", "where to run them, one after the other")
	run := flag.String("run", "", "only tests that match this regular expression; no report is written then")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runAll(ctx, strings.Split(*names, ","), strings.Split(*clusters, ","), *run); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func runAll(ctx context.Context, names, clusters []string, match string) error {
	var chosen []suite
	for _, name := range names {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return fmt.Errorf("there is no suite %q", name)
		}
		chosen = append(chosen, suites[i])
	}
	tools, err := toolchain.Find()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs("bin/conformance")
	if err != nil {
		return fmt.Errorf("find bin/conformance: %w", err)
	}
	if err := buildAgnhost(ctx, dir); err != nil {
		return err
	}
	failed := 0
	for _, s := range chosen {
		if err := s.build(ctx, dir); err != nil {
			return err
		}
		if err := loadImages(ctx, dir, clusters, s.images); err != nil {
			return err
		}
		var results []result
		for _, name := range clusters {
			c, err := find(ctx, name, dir, tools.Program("kubectl"))
			if err != nil {
				return err
			}
			fmt.Println("testing", s.title, "in", name)
			r, err := s.run(ctx, c, match)
			if err != nil {
				return err
			}
			results = append(results, r)
			failed += len(r.failed)
		}
		if match != "" {
			continue
		}
		path := "docs/conformance/" + s.name + ".md"
		if err := os.WriteFile(path, []byte(render(s, results)), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d tests failed", failed)
	}
	return nil
}

func find(ctx context.Context, name, dir, kubectl string) (cluster, error) {
	out, err := exec.CommandContext(ctx, "go", "run", "./hack/lab", "kubeconfig", "--instance", instance, "--cluster", name).Output()
	if err != nil {
		return cluster{}, fmt.Errorf("find the kubeconfig of %s: %w (make demo brings the clusters up)", name, err)
	}
	c := cluster{name: name, kubeconfig: strings.TrimSpace(string(out)), dir: dir, out: filepath.Join(dir, name), kubectl: kubectl}
	if err := os.MkdirAll(c.out, 0o750); err != nil {
		return c, fmt.Errorf("make %s: %w", c.out, err)
	}
	return c, nil
}

// loadImages brings images to the nodes. The front of agnhost is in the places of a shell and of Cyclonus' worker as well: see agnhost/.
func loadImages(ctx context.Context, dir string, clusters, images []string) error {
	front, upstream := filepath.Join(dir, "agnhost"), filepath.Join(dir, "agnhost-upstream")
	files := strings.Join([]string{front, front + "=/agnhost", upstream + "=/agnhost-upstream", front + "=/bin/bash", front + "=/bin/sh", front + "=/worker"}, ",")
	args := []string{"run", "./hack/lab", "load-image", "--instance", instance, "--clusters", strings.Join(clusters, ",")}
	for _, image := range images {
		args = append(args, image+"="+files)
	}
	return command(ctx, "", nil, "go", args...)
}

func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), args[0], err)
	}
	return nil
}
