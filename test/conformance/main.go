// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Conformance runs Kubernetes' own end-to-end tests of network policy on the demo's clusters, and writes what came out to
// docs/conformance. The suite is built from the sources of the Kubernetes version that the lab runs, pinned by the module
// in kubernetes/.
//
//	go run ./test/conformance [-clusters east,west] [-focus REGEXP]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

const (
	instance = "demo"
	// netpol are the specs of NetworkPolicy. SCTP is left out: the lab's kernel may have none.
	netpol = `\[sig-network\].*Netpol`
	skip   = `SCTP`
	limit  = 40 * time.Minute
	report = "docs/conformance/networkpolicy.md"
)

func main() {
	clusters := flag.String("clusters", "east,west", "where to run the suite, one after the other")
	focus := flag.String("focus", netpol, "which specs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*clusters, ","), *focus); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, clusters []string, focus string) error {
	tools, err := toolchain.Find()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs("bin/conformance")
	if err != nil {
		return fmt.Errorf("find bin/conformance: %w", err)
	}
	if err := build(ctx, dir); err != nil {
		return err
	}
	agnhost := filepath.Join(dir, "agnhost")
	image := agnhostImage + "=" + agnhost + "," + agnhost + "=/agnhost"
	if err := command(ctx, "", nil, "go", "run", "./hack/lab", "load-image", "--instance", instance, "--clusters", strings.Join(clusters, ","), image); err != nil {
		return err
	}
	var results []result
	failed := 0
	for _, cluster := range clusters {
		r, err := test(ctx, dir, tools.Program("kubectl"), cluster, focus)
		if err != nil {
			return err
		}
		results = append(results, r)
		failed += len(r.failed)
	}
	if focus == netpol {
		if err := os.WriteFile(report, []byte(render(results)), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", report, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d specs failed", failed)
	}
	return nil
}

// agnhostImage is what the suite's pods run.
const agnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.66.1"

// build makes the suite, its runner and the program of its pods. What is up to date costs some seconds.
func build(ctx context.Context, dir string) error {
	const (
		tags    = "selinux,grpcnotrace"
		version = "k8s.io/component-base/version."
	)
	v := toolchain.KubernetesVersion
	ldflags := "-s -w -X " + version + "gitVersion=" + v + " -X " + version + "gitMajor=1 -X " + version + "gitMinor=37"
	env := []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false"}
	for _, b := range []struct {
		what string
		args []string
	}{
		{"agnhost", []string{"build", "-tags", tags, "-ldflags", ldflags, "-o", dir + "/agnhost", "k8s.io/kubernetes/test/images/agnhost"}},
		{"ginkgo", []string{"build", "-o", dir + "/ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"}},
		{"e2e.test", []string{"test", "-c", "-vet=off", "-tags", tags, "-ldflags", ldflags, "-o", dir + "/e2e.test", "k8s.io/kubernetes/test/e2e"}},
	} {
		fmt.Println("building", b.what, v)
		if err := command(ctx, "test/conformance/kubernetes", env, "go", b.args...); err != nil {
			return err
		}
	}
	return nil
}

// test runs the suite on one cluster. Specs that fail are no error of it.
func test(ctx context.Context, dir, kubectl, cluster, focus string) (result, error) {
	out, err := exec.CommandContext(ctx, "go", "run", "./hack/lab", "kubeconfig", "--instance", instance, "--cluster", cluster).Output()
	if err != nil {
		return result{}, fmt.Errorf("find the kubeconfig of %s: %w (make demo brings the clusters up)", cluster, err)
	}
	config, at := strings.TrimSpace(string(out)), filepath.Join(dir, cluster)
	if err := os.MkdirAll(at, 0o750); err != nil {
		return result{}, fmt.Errorf("make %s: %w", at, err)
	}
	fmt.Println("testing", cluster)
	err = command(ctx, at, []string{"KUBECONFIG=" + config}, filepath.Join(dir, "ginkgo"),
		"--procs=2", "--no-color", "--focus", focus, "--skip", skip, "--keep-going", "--silence-skips", "--output-interceptor-mode=none",
		"--timeout", limit.String(), "--output-dir", at, "--json-report", "report.json", filepath.Join(dir, "e2e.test"), "--",
		"--kubeconfig", config, "--provider=skeleton", "--kubectl-path", kubectl, "--report-dir", at, "--allowed-not-ready-nodes=0")
	r, readErr := read(cluster, filepath.Join(at, "report.json"))
	if readErr != nil {
		return r, fmt.Errorf("%w (the suite ended with: %v)", readErr, err)
	}
	return r, nil
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
