// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/files"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden with what comes out now")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is no longer what comes out; if that is right, go test -update\n--- got\n%s--- want\n%s", file, got, want)
	}
}

func code(err error) int {
	var e exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return int(e)
	}
	return 2
}

func TestPolicyCommands(t *testing.T) {
	paths := []string{"testdata/policies"}
	for _, tt := range []struct {
		name string
		code int
		run  func(io.Writer) error
	}{
		{"policy-test.txt", 1, func(w io.Writer) error { return (&testOptions{format: "text"}).run(w, false, paths) }},
		{"policy-test.json", 1, func(w io.Writer) error { return (&testOptions{format: "json"}).run(w, false, paths) }},
		{"policy-test.xml", 0, func(w io.Writer) error {
			tree, err := files.Read(paths, "")
			if err != nil {
				return err
			}
			report, _ := expect.Run(tree)
			return render.JUnit(w, report)
		}},
		{"policy-lint.txt", 1, func(w io.Writer) error { return (&lintOptions{format: "text"}).run(t.Context(), w, false, paths) }},
		{"policy-lint.json", 1, func(w io.Writer) error { return (&lintOptions{format: "json"}).run(t.Context(), w, false, paths) }},
		{"policy-explain.txt", 1, func(w io.Writer) error {
			return explainFiles(w, "text", paths, "west/shop/batch", "east/shop/api:8080")
		}},
		{"policy-explain.json", 0, func(w io.Writer) error { return explainFiles(w, "json", paths, "east/shop/web", "west/shop/api:8080") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tt.run(&out); code(err) != tt.code {
				t.Fatalf("exit code %d, want %d: %v", code(err), tt.code, err)
			}
			golden(t, tt.name, out.Bytes())
		})
	}
}

func explainFiles(w io.Writer, format string, paths []string, from, to string) error {
	tree, err := files.Read(paths, "")
	if err != nil {
		return err
	}
	m, err := expect.Mesh(tree, tree.Files[0])
	if err != nil {
		return err
	}
	source, err := explain.ParseEnd(from)
	if err != nil {
		return err
	}
	target, err := explain.ParseTarget(to)
	if err != nil {
		return err
	}
	return explainTo(w, format, false, m, source, target)
}

func TestMistakesInFilesHaveTheirLines(t *testing.T) {
	const object = "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: a, namespace: b}\nspec:\n  podSelector: {}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"p.yaml", object + "  ingres: {}\n", `p.yaml:6: unknown field "spec.ingres"`},
		{"p.yaml", strings.Replace(object, "v1alpha1", "v9", 1), "p.yaml:1: MeshNetworkPolicy of fairlead.dev/v9 is not known"},
		{"p.yaml", strings.Replace(object, ", namespace: b", "", 1), "p.yaml:3: metadata.namespace is missing"},
		{"p.yaml", object + "---\n" + object, "p.yaml:7: MeshNetworkPolicy b/a is already defined at"},
		{"a_test.yaml", "expect:\n- from: a/b\n  to: a/c:80\n  verdict: maybe\n", `a_test.yaml:4: expect[0].verdict: "maybe" is none of`},
		{"a_test.yaml", "expect:\n- from: a/b\n  too: a/c:80\n", `a_test.yaml:3: unknown field "expect[0].too"`},
		{"a_test.yaml", object + "  ingres: {}\n", `a_test.yaml:6: unknown field "spec.ingres"`},
		{"a_test.yaml", "expect: []\n---\nexpect: []\n", "a_test.yaml:3: 2 documents hold expectations"},
		{"a_test.yaml", "[]\n", "a_test.yaml:1: not a Kubernetes object"},
		{"a.yaml", "expect: []\n", "a.yaml:1: apiVersion and kind are needed"},
		{"a_test.yaml", "pods: []\n", "a_test.yaml:1: expect is missing"},
		{"a_test.yaml", "expect:\n- {from: a/b, to: 'a/c:80', verdict: denied}\n", "a_test.yaml:2: FROM a/b: no pod of this name"},
		{"a_test.yaml", "clusters: {east: {}}\npods:\n- name: west/a/b\nexpect: [{from: a/b, to: 'a/b:1', verdict: denied}]\n", "a_test.yaml:3: pods[0].name: cluster west is not in clusters"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tt.name), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := (&testOptions{format: "text"}).run(io.Discard, false, []string{dir})
		if err == nil || code(err) != 2 || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v\nwant %s", tt.text, err, tt.want)
		}
	}
}
