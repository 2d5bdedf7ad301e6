// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package arch keeps the dependency rules of docs/architecture.md, each with its reason. It asks the go command what
// imports what, so a rule holds for every file that is built, and for tests where the rule says so.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/fairlead-mesh/fairlead/"

// pkg is what `go list` says about a package of ours.
type pkg struct {
	ImportPath   string
	Dir          string
	Doc          string
	Name         string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
}

// rel is the path from the module's root.
func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module) }

// in says whether the package lies in one of the folders, or is one. A * stands for one folder's name.
func (p pkg) in(folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return within(p.rel(), f) })
}

func within(path, folder string) bool {
	have, want := strings.Split(path, "/"), strings.Split(folder, "/")
	if len(have) < len(want) {
		return false
	}
	for i, w := range want {
		if w != "*" && w != have[i] {
			return false
		}
	}
	return true
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var moduleRoot = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
})

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// listed asks once for all tests.
var listed = sync.OnceValues(func() ([]pkg, error) {
	dir, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read what go list says: %w", err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		return nil, fmt.Errorf("go list found %d packages, which can't be all: a rule over too few packages proves nothing", len(all))
	}
	return all, nil
})

// imports are direct ones, those of the tests with them if wanted.
func (p pkg) imports(tests bool) []string {
	if !tests {
		return p.Imports
	}
	return slices.Concat(p.Imports, p.TestImports, p.XTestImports)
}

// isOrUnder says whether an import path is a package or lies under it.
func isOrUnder(path string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if path == p || strings.HasPrefix(path, p+"/") {
			return p, true
		}
	}
	return "", false
}

func TestOnlyTheirOwners(t *testing.T) {
	rules := []struct {
		imports []string
		owners  []string
		why     string
	}{
		{
			[]string{"go.etcd.io/etcd", "go.etcd.io/bbolt"},
			[]string{"mesh/store", "test"},
			"the shared etcd has one driver: whoever else writes could write outside of the own prefix, or without a canary",
		},
		{
			[]string{"github.com/cilium/ebpf"},
			[]string{"bpf", "nodeagent/kernel", "test"},
			"maps and links have one driver each, so that a plan can be tested without a kernel",
		},
		{
			[]string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.zx2c4.com/wireguard", "golang.org/x/sys/unix"},
			[]string{"nodeagent/kernel", "nodeagent/tunnel", "nodeagent/cni", "nodeagent/internal/nstest", "hack/lab", "test"},
			"what touches the kernel is a small driver; everything before it decides and can be tested anywhere",
		},
		{
			[]string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"},
			[]string{"api", "operator", "kubectl-fairlead", "hack", "test"},
			"node agents have one upstream, the relay: N nodes never load the kube-apiserver, and traffic goes on without it",
		},
	}
	for _, p := range packages(t) {
		for _, r := range rules {
			if p.in(r.owners...) {
				continue
			}
			for _, i := range p.imports(false) {
				if _, hit := isOrUnder(i, r.imports...); hit {
					t.Errorf("%s imports %s, which only %s may: %s", p.rel(), i, strings.Join(r.owners, ", "), r.why)
				}
			}
		}
	}
}

func TestBinariesStayApart(t *testing.T) {
	const why = "the operator and the agent meet on the wire (mesh/relay) and in the pure domain (mesh/*); code that both would share belongs there"
	binaries := []string{"operator", "nodeagent", "kubectl-fairlead"}
	for _, p := range packages(t) {
		for _, mine := range binaries {
			if !p.in(mine) {
				continue
			}
			for _, i := range p.imports(true) {
				for _, other := range binaries {
					if _, hit := isOrUnder(i, module+other); hit && other != mine {
						t.Errorf("%s imports %s: %s", p.rel(), i, why)
					}
				}
			}
		}
		if p.in("mesh", "api", "bpf") {
			for _, i := range p.imports(true) {
				if _, hit := isOrUnder(i, module+"operator", module+"nodeagent", module+"kubectl-fairlead", module+"hack", module+"test"); hit {
					t.Errorf("%s imports %s: the domain is imported by the binaries and knows none of them", p.rel(), i)
				}
			}
		}
		if p.in(binaries...) {
			for _, i := range p.imports(false) {
				if _, hit := isOrUnder(i, module+"hack", module+"test"); hit {
					t.Errorf("%s imports %s: hack and test hold no product logic", p.rel(), i)
				}
			}
		}
	}
}

// pure packages decide: the same input gives the same answer, on every machine and at every time.
var pure = []string{"mesh/flow", "mesh/icmp", "mesh/identity", "mesh/policy", "mesh/service", "mesh/topology", "operator/aggregate", "operator/export", "nodeagent/plan", "kubectl-fairlead/evaluate",
	"kubectl-fairlead/policy/world", "kubectl-fairlead/policy/explain", "kubectl-fairlead/policy/expect", "kubectl-fairlead/policy/lint", "mesh/manifest"}

// impure are the packages that a decision must not reach for. Pure packages may get to them through the types they
// use (Kubernetes' own, protobuf's), so only direct imports and those through our own packages count.
var impure = []string{
	"net/http", "os", "os/exec", "io/ioutil", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "sync", "sync/atomic",
	"context", "google.golang.org/grpc", "k8s.io/klog/v2", "k8s.io/client-go", "sigs.k8s.io/controller-runtime/pkg/client",
	"go.etcd.io/etcd", "github.com/cilium/ebpf", "github.com/vishvananda/netlink", "golang.org/x/sys/unix",
}

func TestPureStaysPure(t *testing.T) {
	const why = "what decides is a pure function of its input, so that operator, agent, command line and tests get the same answer, and can be asked without a cluster"
	all := packages(t)
	seen := map[string]bool{}
	for _, p := range all {
		if !p.in(pure...) {
			continue
		}
		for _, folder := range pure {
			if within(p.rel(), folder) {
				seen[folder] = true
			}
		}
		for _, i := range p.Imports {
			if name, hit := isOrUnder(i, impure...); hit && i != "net/netip" {
				t.Errorf("%s imports %s (%s): %s", p.rel(), i, name, why)
			}
		}
		for _, d := range p.Deps {
			if ours := strings.HasPrefix(d, module); ours && (within(strings.TrimPrefix(d, module), "mesh/store") || within(strings.TrimPrefix(d, module), "nodeagent/kernel")) {
				t.Errorf("%s depends on %s: %s", p.rel(), d, why)
			}
		}
	}
	for _, folder := range pure {
		if !seen[folder] {
			t.Errorf("%s is listed as pure and does not exist: a rule about nothing keeps nothing", folder)
		}
	}
	for _, p := range all {
		if p.in(pure...) {
			clocksAndGoroutines(t, p, why)
		}
	}
}

func TestApplyMeetsInTables(t *testing.T) {
	const why = "appliers meet in tables; one that calls another makes an order that nobody can see"
	for _, p := range packages(t) {
		if !p.in("nodeagent/apply/*") {
			continue
		}
		mine := strings.Join(strings.Split(p.rel(), "/")[:3], "/")
		for _, i := range p.imports(true) {
			other := strings.TrimPrefix(i, module)
			if within(other, "nodeagent/apply/*") && !within(other, mine) {
				t.Errorf("%s imports %s: %s", p.rel(), i, why)
			}
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && hasOurSource(t, p) {
			t.Errorf("%s has no package comment: the first thing a reader asks is what it is for and how data flows through it", p.rel())
		}
	}
}

// hasOurSource says whether a package holds more than tests and generated files.
func hasOurSource(t *testing.T, p pkg) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil {
		t.Fatalf("list %s: %v", p.Dir, err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		if strings.HasSuffix(file, "_test.go") {
			return false
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("read %s: %v", file, err)
		}
		return !isGenerated(content)
	})
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, folder string
		want         bool
	}{
		{"mesh/store", "mesh/store", true},
		{"mesh/store/etcd", "mesh/store", true},
		{"mesh/storefront", "mesh/store", false},
		{"nodeagent/apply", "nodeagent/apply/*", false},
		{"nodeagent/apply/policy", "nodeagent/apply/*", true},
		{"operator", "operator/export", false},
	} {
		if got := within(c.path, c.folder); got != c.want {
			t.Errorf("within(%q, %q) = %t", c.path, c.folder, got)
		}
	}
}
