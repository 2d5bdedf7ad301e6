// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// clocksAndGoroutines looks for what imports alone don't tell: package time is fine for durations and for times that
// are handed in.
func clocksAndGoroutines(t *testing.T, p pkg, why string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil {
		t.Fatalf("list %s: %v", p.Dir, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("parse %s: %v", file, err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.GoStmt:
				what = "starts a goroutine"
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				switch x.Name + "." + n.Sel.Name {
				case "time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker", "time.Tick", "time.AfterFunc":
					what = "looks at the clock"
				case "net.Dial", "net.Listen", "net.LookupHost", "net.LookupIP", "net.Interfaces", "net.InterfaceAddrs":
					what = "uses the network"
				}
			}
			if what != "" {
				t.Errorf("%s %s: %s", set.Position(n.Pos()), what, why)
			}
			return true
		})
	}
}

// longest is where a file stops being one thought.
const longest = 500

// source files of ours; what is generated or fetched is nobody's to format.
func sources(t *testing.T, visit func(path string, content []byte)) {
	t.Helper()
	dir := root(t)
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != dir && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".c", ".h", ".proto":
		default:
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if isGenerated(content) {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		n++
		visit(rel, content)
		return nil
	})
	if err != nil {
		t.Fatalf("walk the sources: %v", err)
	}
	if n == 0 {
		t.Fatal("no source files found: a rule over nothing proves nothing")
	}
}

func isGenerated(content []byte) bool {
	for line := range bytes.Lines(content) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "package ") {
			return false
		}
		if strings.HasPrefix(text, "// Code generated ") && strings.HasSuffix(text, "DO NOT EDIT.") {
			return true
		}
	}
	return false
}

func TestFilesAreShort(t *testing.T) {
	sources(t, func(path string, content []byte) {
		if lines := bytes.Count(content, []byte("\n")); lines > longest {
			t.Errorf("%s has %d lines: above %d a file is more than one thought; split it where the thoughts part", path, lines, longest)
		}
	})
}

func TestFilesCarryTheLicence(t *testing.T) {
	sources(t, func(path string, content []byte) {
		head := content[:min(len(content), 400)]
		if strings.HasSuffix(path, ".bpf.c") || strings.HasSuffix(path, ".h") {
			if !bytes.Contains(head, []byte("SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)")) {
				t.Errorf("%s: eBPF C is licensed GPL-2.0-only OR Apache-2.0, and says so first, or the kernel refuses its helpers", path)
			}
			return
		}
		if !bytes.Contains(head, []byte("Copyright The Fairlead Authors.")) || !bytes.Contains(head, []byte("SPDX-License-Identifier: Apache-2.0")) {
			t.Errorf("%s: the licence header is missing", path)
		}
	})
}
