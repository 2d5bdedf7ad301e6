// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Vm runs tests of what talks to the kernel on Debian's kernels, each in a virtual machine of its own, and writes what came out
// to docs/kernels.md. The machine has this system's root file system, read only, and needs no KVM.
//
//	go run ./test/vm [-kernels 6.1,6.12] [-packages ./bpf,...] [-run REGEXP]
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
	page = "docs/kernels.md"
	// limit of a package's tests on a kernel: emulated processors are some twenty times slower.
	limit = 90 * time.Minute
)

// packages whose tests need a kernel.
var packages = []string{
	"./bpf", "./nodeagent/kernel/datapath", "./nodeagent/kernel/firstdrop", "./nodeagent/kernel/links", "./nodeagent/kernel/routes",
	"./nodeagent/kernel/wireguard",
}

func main() {
	kernels := flag.String("kernels", "6.1,6.12", "series of Debian's kernels")
	pkgs := flag.String("packages", strings.Join(packages, ","), "whose tests to run")
	match := flag.String("run", "", "only tests that match this regular expression; no report is written then")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*kernels, ","), strings.Split(*pkgs, ","), *match); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, series, pkgs []string, match string) error {
	if err := toolchain.EnsurePackages(ctx, os.Stdout, "qemu-system-x86", "xz-utils"); err != nil {
		return err
	}
	cache, err := toolchain.CacheDir()
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	dir, err := filepath.Abs("bin/vm")
	if err != nil {
		return fmt.Errorf("find bin/vm: %w", err)
	}
	tests, err := build(ctx, dir, pkgs)
	if err != nil {
		return err
	}
	var all []result
	failed := 0
	for _, s := range series {
		k, err := fetchKernel(ctx, filepath.Join(cache, "kernels"), s)
		if err != nil {
			return err
		}
		m, err := newMachine(ctx, k, dir)
		if err != nil {
			return err
		}
		for _, t := range tests {
			r, err := m.test(ctx, t, match)
			if err != nil {
				return fmt.Errorf("kernel %s, %s: %w", k.version, t.pkg, err)
			}
			fmt.Printf("%-28s %-32s %s\n", k.version, t.pkg, r)
			for _, name := range r.failed {
				fmt.Println("  FAIL", name)
			}
			failed += len(r.failed)
			all = append(all, r)
		}
	}
	if match == "" {
		if err := os.WriteFile(page, []byte(render(all)), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", page, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d tests failed; their output is in %s", failed, dir)
	}
	return nil
}

// test is a package's test binary.
type test struct {
	pkg, binary, dir string
}

func build(ctx context.Context, dir string, pkgs []string) ([]test, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	var tests []test
	for _, p := range pkgs {
		source, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", p, err)
		}
		t := test{pkg: p, dir: source, binary: filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(p, "./"), "/", "-")+".test")}
		if err := goTool(ctx, "test", "-c", "-o", t.binary, p); err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return tests, goTool(ctx, "build", "-o", filepath.Join(dir, "init"), "./test/vm/init")
}

func goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
