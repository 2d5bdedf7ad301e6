// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Limits keep a hostile or mistaken repository from filling the operator's memory.
type Limits struct {
	// FetchBytes is the most that is unpacked from one fetch.
	FetchBytes int64
	// FileBytes is the most one policy file may hold.
	FileBytes int64
	// Files is the most YAML files below a PolicySource's path.
	Files int
	// Objects is the most policies in one tree.
	Objects int
}

// DefaultLimits fit thousands of policies.
func DefaultLimits() Limits {
	return Limits{FetchBytes: 64 << 20, FileBytes: 1 << 20, Files: 5000, Objects: 5000}
}

// File is a YAML file of a repository; Path is relative to the repository's root.
type File struct {
	Path string
	Data []byte
}

// Tree is what was fetched: the YAML files below the wanted path, at a revision.
type Tree struct {
	URL      string
	Revision string
	Files    []File
}

// fetchError marks errors that another try may heal: network, login, a source that isn't ready yet.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

func notFetched(format string, args ...any) error {
	return &fetchError{fmt.Errorf(format, args...)}
}

func isFetchError(err error) bool {
	var f *fetchError
	return errors.As(err, &f)
}

// cleanPath turns spec.path into a slash path within the repository; "" is its root.
func cleanPath(p string) (string, error) {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %q leaves the repository", p)
		}
	}
	clean := path.Clean("/" + p)
	return strings.TrimPrefix(clean, "/"), nil
}

// wanted says whether a file holds policies: YAML, and neither it nor a folder above it is hidden (.git, .github, ...).
func wanted(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, ".") {
			return false
		}
	}
	ext := path.Ext(p)
	return ext == ".yaml" || ext == ".yml"
}

// collector gathers files within limits.
type collector struct {
	limits Limits
	files  []File
}

func (c *collector) add(name string, size int64, read func() ([]byte, error)) error {
	if len(c.files) >= c.limits.Files {
		return &BuildError{Problems: []Problem{{Path: name, Message: fmt.Sprintf("more than %d YAML files", c.limits.Files)}}}
	}
	if size > c.limits.FileBytes {
		return &BuildError{Problems: []Problem{{Path: name, Message: fmt.Sprintf("%d bytes are more than the %d a policy file may have", size, c.limits.FileBytes)}}}
	}
	data, err := read()
	if err != nil {
		return notFetched("read %s: %w", name, err)
	}
	c.files = append(c.files, File{Path: name, Data: data})
	return nil
}
