// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// generated files, as patterns from the repository's root.
var generated = []string{
	"api/*/zz_generated.*.go",
	"config/crd/fairlead.dev_*.yaml",
	"mesh/*/v1/*.pb.go",
	"bpf/*_bpfel.go", "bpf/*_bpfel.o", "bpf/*_gen.go",
	"test/bench/*/*_bpfel.go", "test/bench/*/*_bpfel.o",
}

// contents of files by path.
type contents map[string][]byte

func snapshot() (contents, error) {
	c := contents{}
	for _, pattern := range generated {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", pattern, err)
		}
		for _, path := range paths {
			if c[path], err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("read what is generated: %w", err)
			}
		}
	}
	return c, nil
}

// compare names the files that are not any more what they were.
func (before contents) compare() error {
	after, err := snapshot()
	if err != nil {
		return err
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	var changed []string
	for _, path := range slices.Sorted(maps.Keys(all)) {
		was, had := before[path]
		is, has := after[path]
		if had != has || !bytes.Equal(was, is) {
			changed = append(changed, path)
		}
	}
	if len(changed) > 0 {
		return fmt.Errorf("these were not what their source makes; commit them as they are now:\n  %s", strings.Join(changed, "\n  "))
	}
	return nil
}
