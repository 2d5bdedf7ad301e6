// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const source = "../../toolchain"

// The version a tool's place in the cache is named by must be the one its
// module pins.
func TestVersionsMatchTheModules(t *testing.T) {
	for _, tool := range Tools() {
		mod, err := os.ReadFile(filepath.Join(source, tool.Name, "go.mod"))
		if err != nil {
			t.Errorf("%s: %v", tool.Name, err)
			continue
		}
		packages := tool.Packages
		if len(packages) == 0 {
			packages = []string{"k8s.io/kubernetes"}
		}
		for _, p := range packages {
			if !pins(string(mod), p, tool.Version) {
				t.Errorf("%s: go.mod does not pin %s to %s", tool.Name, p, tool.Version)
			}
		}
	}
}

// pins tells whether the module file requires, at the version, the module
// that the package is in.
func pins(mod, pkg, version string) bool {
	for line := range strings.Lines(mod) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && f[1] == version && (f[0] == pkg || strings.HasPrefix(pkg, f[0]+"/")) {
			return true
		}
	}
	return false
}

func TestKeyFollowsItsInputs(t *testing.T) {
	dir := t.TempDir()
	tool := Tool{Name: "x", Version: "v1"}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, "x", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	check := func(what string, tool Tool) {
		t.Helper()
		key, err := tool.key(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := tool.key(dir); again != key {
			t.Errorf("%s: the key changes by itself", what)
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", what, other)
		}
		seen[key] = what
	}
	write("go.mod", "module x")
	check("the beginning", tool)
	write("go.mod", "module y")
	check("another go.mod", tool)
	write("main.go", "package main")
	check("a new file", tool)
	tool.Tags = "t"
	check("other tags", tool)
	tool.Version = "v2"
	check("another version", tool)

	if _, err := (Tool{Name: "missing"}).key(dir); err == nil {
		t.Error("a tool without a module has a key")
	}
}

func TestEstimate(t *testing.T) {
	for want, got := range map[string]string{
		"1 of 1000 packages (0%)":                                           estimate(1, 1000, time.Second),
		"250 of 1000 packages (25%), about 3 min left for all tools":        estimate(250, 1000, time.Minute),
		"900 of 1000 packages (90%), less than a minute left for all tools": estimate(900, 1000, time.Minute),
		"linking": estimate(1000, 1000, time.Minute),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPackageLines(t *testing.T) {
	for line, want := range map[string]bool{
		"k8s.io/kubernetes/pkg/kubelet": true,
		"vendor/golang.org/x/net/idna":  true,
		"# runtime/cgo":                 false,
		"./main.go:3:2: undefined: x":   false,
		"go: downloading x v1":          false,
		"":                              false,
	} {
		if got := isPackage(line); got != want {
			t.Errorf("isPackage(%q) = %v", line, got)
		}
	}
}
