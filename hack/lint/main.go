// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// lint runs golangci-lint as pinned in hack/toolchain/golangci-lint. It is built once for each version into the cache
// that all third-party tools share, because its module graph must not mix with the project's.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	module = "hack/toolchain/golangci-lint"
	tool   = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint"
)

func main() {
	path, err := linter()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"run", "./..."}
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		os.Exit(failed.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
}

// linter gives the path of the built linter. Its place is named by what is built, so a new pin is a new place.
func linter() (string, error) {
	pins, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("read the pinned versions (run from the repository's root): %w", err)
	}
	dir, err := cache()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tools", fmt.Sprintf("golangci-lint-%.10x", sha256.Sum256(pins)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := build(path); err != nil {
		return "", fmt.Errorf("build %s: %w", tool, err)
	}
	return path, nil
}

func cache() (string, error) {
	if dir := os.Getenv("FAIRLEAD_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory (set FAIRLEAD_CACHE): %w", err)
	}
	return filepath.Join(dir, "fairlead"), nil
}

// build makes the program beside its place and moves it there when it is whole.
func build(path string) error {
	fmt.Println("building golangci-lint, once for this version; about two minutes on two cores")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the place: %w", err)
	}
	next := fmt.Sprintf("%s.new.%d", path, os.Getpid())
	defer func() { _ = os.Remove(next) }()
	cmd := exec.Command("go", "build", "-o", next, "-ldflags", "-s -w", tool)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return os.Rename(next, path)
}
