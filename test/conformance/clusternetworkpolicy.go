// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// policyAPI is the module of the ClusterNetworkPolicy API, in the version that Fairlead reads.
const policyAPI = "sigs.k8s.io/network-policy-api/conformance"

// clusterNetworkPolicy has the API's own tests, standard and experimental.
var clusterNetworkPolicy = suite{
	name:  "clusternetworkpolicy",
	title: "ClusterNetworkPolicy: the API's own tests",
	about: "The conformance tests of sigs.k8s.io/network-policy-api, standard and experimental ones. Where the kernel has no SCTP, its " +
		"handshakes are sent over raw sockets (`test/conformance/agnhost`).",
	images: []string{"registry.k8s.io/e2e-test-images/agnhost:2.45"},
	build: func(ctx context.Context, dir string) error {
		fmt.Println("building", policyAPI)
		return command(ctx, "", []string{"CGO_ENABLED=0"}, "go", "test", "-c", "-vet=off", "-o", dir+"/policyapi.test", policyAPI)
	},
	run: runPolicyAPI,
}

func runPolicyAPI(ctx context.Context, c cluster, run string) (result, error) {
	env := []string{"KUBECONFIG=" + c.kubeconfig}
	if err := command(ctx, "", env, c.kubectl, "apply", "--server-side", "-f", "test/crd/policy.networking.k8s.io_clusternetworkpolicies.yaml"); err != nil {
		return result{}, err
	}
	only := "^TestConformance$"
	if run != "" {
		only += "/" + run
	}
	path := filepath.Join(c.out, "policyapi.json")
	out, err := os.Create(path)
	if err != nil {
		return result{}, fmt.Errorf("write %s: %w", path, err)
	}
	defer out.Close()
	// The suite's own package has tests besides, which need a profile.
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", filepath.Join(c.dir, "policyapi.test"), "-test.v=test2json", "-test.timeout", limit.String(),
		"-test.run", only, "-all-features", "-debug")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), out, os.Stderr
	err = cmd.Run()
	r, readErr := readGoTest(c.name, path)
	if readErr != nil {
		return r, fmt.Errorf("%w (the suite ended with: %v)", readErr, err)
	}
	return r, nil
}
