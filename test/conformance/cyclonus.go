// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// cyclonus has the cases of Cyclonus, which generates policies and asks after each step whether every pod of three namespaces reaches
// every other one, or doesn't. The program in cyclonus/ is a module of its own.
var cyclonus = suite{
	name:  "cyclonus",
	title: "NetworkPolicy: Cyclonus",
	about: "All test cases that github.com/mattfenwick/cyclonus v0.5.6 generates, with those that it leaves out by default (several peers, port " +
		"ranges, namespaces by their default label, examples, Kubernetes' former end-to-end tests). A case has steps; after each, all of " +
		"nine pods in three namespaces try all others by the names of their services, at two ports of TCP and UDP, and of SCTP where the kernel " +
		"has it. Cases, expected results and their comparison are Cyclonus' own. What a pod reaches on itself is ignored " +
		"(`--ignore-loopback`): Kubernetes doesn't say what policy is to do with it. " +
		"Tries are made in one process a pod (`test/conformance/agnhost`), not with a process each.",
	images: []string{"registry.k8s.io/e2e-test-images/agnhost:2.43"},
	build: func(ctx context.Context, dir string) error {
		fmt.Println("building cyclonus")
		env := []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false"}
		return command(ctx, "test/conformance/cyclonus", env, "go", "build", "-o", dir+"/cyclonus", ".")
	},
	run: runCyclonus,
}

func runCyclonus(ctx context.Context, c cluster, run string) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	path := filepath.Join(c.out, "cyclonus.json")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return result{}, fmt.Errorf("remove the last results: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.dir, "cyclonus"), "-out", path, "-run", run, "-protocols", protocols())
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "KUBECONFIG="+c.kubeconfig), os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it removes its namespaces
	// A case that fails is no error of the program's: one that it has means that cases are missing.
	if err := cmd.Run(); err != nil {
		return result{}, fmt.Errorf("run cyclonus in %s: %w", c.name, err)
	}
	return readCyclonus(c.name, path)
}

// protocols are those that pods can speak: the lab's nodes have this kernel.
func protocols() string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return "TCP,UDP"
	}
	_ = unix.Close(fd)
	return "TCP,UDP,SCTP"
}
