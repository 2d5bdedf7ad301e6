// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package files reads what policies are tested and checked by from folders, without any cluster: policies of every dialect,
// Namespaces and Pods, and files of expectations.
//
//	paths ── Read ──► Tree ──► policy/expect, policy/lint
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
)

// largest file that is read.
const largest = 4 << 20

// Problem is something wrong in a file.
type Problem = expect.Problem

// ProblemsError are all problems of all files.
type ProblemsError struct{ Problems []Problem }

func (e *ProblemsError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Read reads all YAML files below the paths. Expectations are in files with names that end in _test.yaml; of objects
// those that matter are taken. namespace is for policies and pods that name none; empty: each must name one.
func Read(paths []string, namespace string) (expect.Tree, error) {
	var names []string
	for _, p := range paths {
		found, err := list(p)
		if err != nil {
			return expect.Tree{}, err
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return expect.Tree{}, fmt.Errorf("no YAML file in %s", strings.Join(paths, ", "))
	}
	r := reader{namespace: namespace}
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			return expect.Tree{}, err
		}
		r.file(name, data)
	}
	r.twice()
	r.define()
	if len(r.problems) > 0 {
		return expect.Tree{}, &ProblemsError{r.problems}
	}
	return r.tree, nil
}

func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if info.Size() > largest {
		return nil, fmt.Errorf("read %s: it has %d bytes, more than the %d that a file of policies may have", name, info.Size(), largest)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// list names the YAML files below a path; hidden files and folders aren't looked at, as the operator doesn't.
func list(path string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("read %s: there is no such file or folder", name)
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		case name != path && strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		ext := filepath.Ext(name)
		if name == path || !strings.HasPrefix(d.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
			out = append(out, name)
		}
		return nil
	})
	return out, err
}
