// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

const (
	// netpol are the specs of NetworkPolicy. SCTP is left out: the lab's kernel may have none, and these pods may not use raw
	// sockets.
	netpol   = `\[sig-network\].*Netpol`
	skipSCTP = `SCTP`

	// tags and version of Kubernetes' programs.
	tags    = "selinux,grpcnotrace"
	version = "k8s.io/component-base/version."
)

// kubernetes has the end-to-end tests of NetworkPolicy, built from the sources of the version that the lab runs, which the
// module in kubernetes/ pins.
var kubernetes = suite{
	name:   "networkpolicy",
	title:  "NetworkPolicy: Kubernetes' own tests",
	about:  "The end-to-end tests of Kubernetes " + toolchain.KubernetesVersion + ", those of NetworkPolicy, without SCTP, which a kernel may not have.",
	images: []string{"registry.k8s.io/e2e-test-images/agnhost:2.66.1"},
	build: func(ctx context.Context, dir string) error {
		if err := buildUpstream(ctx, "ginkgo", "build", "-o", dir+"/ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"); err != nil {
			return err
		}
		return buildUpstream(ctx, "e2e.test", "test", "-c", "-vet=off", "-tags", tags, "-ldflags", ldflags(), "-o", dir+"/e2e.test", "k8s.io/kubernetes/test/e2e")
	},
	run: runGinkgo,
}

func ldflags() string {
	return "-s -w -X " + version + "gitVersion=" + toolchain.KubernetesVersion + " -X " + version + "gitMajor=1 -X " + version + "gitMinor=37"
}

// buildUpstream builds a program of Kubernetes. What is up to date costs some seconds.
func buildUpstream(ctx context.Context, what string, args ...string) error {
	fmt.Println("building", what, toolchain.KubernetesVersion)
	env := []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false"}
	return command(ctx, "test/conformance/kubernetes", env, "go", args...)
}

// buildAgnhost builds the program of the suites' pods, and what stands in front of it.
func buildAgnhost(ctx context.Context, dir string) error {
	if err := buildUpstream(ctx, "agnhost", "build", "-tags", tags, "-ldflags", ldflags(), "-o", dir+"/agnhost-upstream", "k8s.io/kubernetes/test/images/agnhost"); err != nil {
		return err
	}
	return command(ctx, "", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", dir+"/agnhost", "./test/conformance/agnhost")
}

func runGinkgo(ctx context.Context, c cluster, run string) (result, error) {
	if run == "" {
		run = netpol
	}
	err := command(ctx, c.out, []string{"KUBECONFIG=" + c.kubeconfig}, filepath.Join(c.dir, "ginkgo"),
		"--procs=2", "--no-color", "--focus", run, "--skip", skipSCTP, "--keep-going", "--silence-skips", "--output-interceptor-mode=none",
		"--timeout", limit.String(), "--output-dir", c.out, "--json-report", "report.json", filepath.Join(c.dir, "e2e.test"), "--",
		"--kubeconfig", c.kubeconfig, "--provider=skeleton", "--kubectl-path", c.kubectl, "--report-dir", c.out, "--allowed-not-ready-nodes=0")
	r, readErr := readGinkgo(c.name, filepath.Join(c.out, "report.json"))
	if readErr != nil {
		return r, fmt.Errorf("%w (the suite ended with: %v)", readErr, err)
	}
	return r, nil
}
