// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"errors"
	"os"
	"path/filepath"
)

// Find opens the user's cache for the checkout that the working directory, or
// else the running program, is in.
func Find() (*Cache, error) {
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if program, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(program))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			source := filepath.Join(dir, "hack", "toolchain")
			if _, err := os.Stat(filepath.Join(source, "hyperkube", "go.mod")); err == nil {
				return Open(source)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return nil, errors.New("find hack/toolchain: run this inside a checkout of Fairlead")
}
