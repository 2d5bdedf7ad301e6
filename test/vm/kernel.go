// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernel is one of Debian's, unpacked but not installed.
type kernel struct {
	version string // as uname says
	root    string // with boot and lib/modules
}

func (k kernel) image() string { return filepath.Join(k.root, "boot", "vmlinuz-"+k.version) }

// metaPackages are those that may depend on the newest kernel of a series. The one that a release came with has no name of its own.
func metaPackages(series string) []string {
	return []string{"linux-image-" + series + "-amd64", "linux-image-amd64"}
}

var imageName = regexp.MustCompile(`linux-image-([0-9][^ ]*-amd64)`)

// fetchKernel unpacks the newest kernel of a series, such as 6.12, into dir, unless it is there.
func fetchKernel(ctx context.Context, dir, series string) (kernel, error) {
	version, err := newest(ctx, series)
	if err != nil {
		return kernel{}, err
	}
	k := kernel{version: version, root: filepath.Join(dir, version)}
	if _, err := os.Stat(filepath.Join(k.root, "lib", "modules", version, "modules.dep")); err == nil {
		return k, nil
	}
	fmt.Println("fetching kernel", version)
	if err := os.RemoveAll(k.root); err != nil {
		return k, fmt.Errorf("remove half of a kernel: %w", err)
	}
	if err := os.MkdirAll(k.root, 0o755); err != nil { //nolint:gosec // apt's user reads it
		return k, fmt.Errorf("make %s: %w", k.root, err)
	}
	for _, c := range [][]string{
		{"apt-get", "download", "-q", "linux-image-" + version},
		{"sh", "-c", "dpkg-deb -x linux-image-*.deb . && rm linux-image-*.deb && if [ -d usr/lib/modules ]; then mkdir -p lib && mv usr/lib/modules lib/; fi"},
		{"depmod", "-b", k.root, version},
	} {
		if _, err := output(ctx, k.root, c...); err != nil {
			return k, err
		}
	}
	return k, nil
}

func newest(ctx context.Context, series string) (string, error) {
	var errs []error
	for _, meta := range metaPackages(series) {
		out, err := output(ctx, "", "apt-cache", "depends", meta)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, m := range imageName.FindAllStringSubmatch(out, -1) {
			if strings.HasPrefix(m[1], series+".") {
				return m[1], nil
			}
		}
	}
	return "", errors.Join(append(errs, fmt.Errorf("this distribution has no kernel of the series %s: see apt-cache search '^linux-image.*-amd64$'", series))...)
}

// modules are the files that a module needs, its own last, none of what is built in.
func (k kernel) modules(ctx context.Context, name string) ([]string, error) {
	out, err := output(ctx, "", "modprobe", "-d", k.root, "-S", k.version, "--show-depends", name)
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(out) {
		if f, ok := strings.CutPrefix(strings.TrimSpace(line), "insmod "); ok {
			files = append(files, strings.TrimSpace(f))
		}
	}
	return files, nil
}

func output(ctx context.Context, dir string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
