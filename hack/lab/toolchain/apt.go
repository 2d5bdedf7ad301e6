// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// packages that the lab, the build of the eBPF programs and the demo need
// from the distribution.
var packages = []string{
	"clang-19", "llvm-19", "libbpf-dev", "bpftool", "protobuf-compiler", "libseccomp-dev", "pkg-config", "gcc", "libc6-dev", "git",
	"iproute2", "nftables", "iptables", "tcpdump", "conntrack", "ethtool", "kmod", "jq", "util-linux",
}

// EnsurePackages installs the Debian packages that are not installed yet, and those that only the caller needs.
func EnsurePackages(ctx context.Context, w io.Writer, also ...string) error {
	missing, err := missingPackages(ctx, slices.Concat(packages, also))
	if err != nil || len(missing) == 0 {
		return err
	}
	fmt.Fprintf(w, "  installing %s\n", strings.Join(missing, " "))
	if err := apt(ctx, "update", "-q"); err != nil {
		return err
	}
	return apt(ctx, append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...)
}

func missingPackages(ctx context.Context, packages []string) ([]string, error) {
	query, err := exec.LookPath("dpkg-query")
	if err != nil {
		return nil, fmt.Errorf("this is no Debian-like system (%w): install by hand what these packages hold: %s", err, strings.Join(packages, " "))
	}
	args := append([]string{"-W", "-f", "${Package} ${db:Status-Status}\n"}, packages...)
	out, _ := exec.CommandContext(ctx, query, args...).Output() // fails when one is unknown
	installed := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		installed[name] = status == "installed"
	}
	var missing []string
	for _, p := range packages {
		if !installed[p] {
			missing = append(missing, p)
		}
	}
	return missing, ctx.Err()
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, lastLines(out.String()))
	}
	return nil
}
