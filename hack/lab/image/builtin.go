// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of the images that every node has.
const (
	PauseName   = "lab.fairlead.dev/pause:1"
	CoreDNSName = "lab.fairlead.dev/coredns:v1.15.0"
)

//go:embed pause/pause.c
var pauseSource []byte

// Pause builds the image of the pods' first process, with its binary in dir.
// C, because every pod has one: as a Go program it would cost each pod a
// runtime of a few megabytes.
func Pause(ctx context.Context, dir string) (Image, error) {
	img := Image{Name: PauseName, Files: []File{{Source: filepath.Join(dir, "pause"), Path: "/pause"}}}
	if _, err := os.Stat(img.Files[0].Source); err == nil {
		return img, nil
	}
	next := img.Files[0].Source + ".new"
	cmd := exec.CommandContext(ctx, "gcc", "-static", "-Os", "-s", "-Wall", "-Werror", "-x", "c", "-o", next, "-")
	cmd.Stdin = strings.NewReader(string(pauseSource))
	if out, err := cmd.CombinedOutput(); err != nil {
		return Image{}, fmt.Errorf("compile pause: %w: %s", err, out)
	}
	if err := os.Rename(next, img.Files[0].Source); err != nil {
		return Image{}, fmt.Errorf("compile pause: %w", err)
	}
	return img, nil
}

// CoreDNS is the cluster DNS server's image.
func CoreDNS(program string) Image {
	return Image{Name: CoreDNSName, Files: []File{{Source: program, Path: "/coredns"}}}
}
