// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machine runs commands under a kernel. Its root file system is this system's, read only; see test/vm/init.
type machine struct {
	kernel kernel
	dir    string // for what it makes
	init   []byte
	early  []string // modules that the root file system needs, in order
}

// rootModules are what a root file system of the host's takes.
var rootModules = []string{"virtio_pci", "9p", "9pnet_virtio"}

func newMachine(ctx context.Context, k kernel, dir string) (*machine, error) {
	m := &machine{kernel: k, dir: dir}
	var err error
	if m.init, err = os.ReadFile(filepath.Join(dir, "init")); err != nil { //nolint:gosec // our own build
		return nil, fmt.Errorf("read init: %w", err)
	}
	for _, name := range rootModules {
		files, err := k.modules(ctx, name)
		if err != nil {
			return nil, err
		}
		m.early = append(m.early, files...)
	}
	return m, nil
}

// archive has init, the modules that it loads in the order of their names, and the command.
func (m *machine) archive(ctx context.Context, command string) ([]byte, error) {
	var a archive
	a.folder("modules")
	a.folder("root")
	a.file("init", m.init)
	a.file("command", []byte(command))
	for i, path := range m.early {
		reader := "cat"
		if strings.HasSuffix(path, ".xz") {
			reader = "xzcat"
		}
		data, err := output(ctx, "", reader, path)
		if err != nil {
			return nil, err
		}
		a.file(fmt.Sprintf("modules/%03d", i), []byte(data))
	}
	return a.finish(), nil
}

// loadModules lets the kernel find its own modules when it wants some: the host's folder may not even be there.
const loadModules = `printf '#!/bin/sh\nexec modprobe -d %s "$@"\n' > /mnt/modprobe
chmod +x /mnt/modprobe
echo /mnt/modprobe > /proc/sys/kernel/modprobe
`

// run runs a shell command and returns its status and where its output is.
func (m *machine) run(ctx context.Context, name, command string) (status int, log string, err error) {
	command = fmt.Sprintf(loadModules, m.kernel.root) + command
	image, err := m.archive(ctx, command)
	if err != nil {
		return 0, "", err
	}
	base := filepath.Join(m.dir, m.kernel.version+"-"+name)
	if err := os.WriteFile(base+".cpio", image, 0o600); err != nil {
		return 0, "", fmt.Errorf("write the initial file system: %w", err)
	}
	defer os.Remove(base + ".cpio")
	out, err := os.Create(base + ".log")
	if err != nil {
		return 0, "", fmt.Errorf("make the log: %w", err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-m", "2048", "-smp", "2",
		"-kernel", m.kernel.image(), "-initrd", base+".cpio", "-append", "console=ttyS1 panic=-1 quiet rdinit=/init",
		"-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none", "-serial", "stdio", "-serial", "file:"+base+".console",
		"-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x4")
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, "", fmt.Errorf("run qemu: %w", err)
	}
	// The device ends qemu with twice what is written to it, and one.
	code := cmd.ProcessState.ExitCode()
	if code&1 == 0 || code < 0 {
		return 0, "", fmt.Errorf("the machine stopped without a status (qemu's is %d): see %s.console and %s.log", code, base, base)
	}
	return code >> 1, base + ".log", nil
}

// test runs a package's tests.
func (m *machine) test(ctx context.Context, t test, match string) (result, error) {
	command := fmt.Sprintf("cd %s && exec %s -test.v -test.timeout=%s -test.run '%s'\n", t.dir, t.binary, limit, match)
	status, log, err := m.run(ctx, strings.TrimSuffix(filepath.Base(t.binary), ".test"), command)
	if err != nil {
		return result{}, err
	}
	data, err := os.ReadFile(log) //nolint:gosec // our own
	if err != nil {
		return result{}, fmt.Errorf("read the tests' output: %w", err)
	}
	r := parse(string(data))
	r.kernel, r.pkg = m.kernel.version, t.pkg
	if status != 0 && len(r.failed) == 0 {
		return r, fmt.Errorf("the tests ended with status %d: see %s", status, log)
	}
	return r, nil
}
