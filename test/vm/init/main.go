// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Init is the first process of a test's virtual machine. It mounts the host's root file system read only, with fresh places to
// write, runs /command there by a shell and ends the machine with its status.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	root = "/root"
	// temporary is not /tmp, where the checkout may lie.
	temporary = "/mnt"
)

func main() {
	status, err := run()
	if err != nil {
		fmt.Println("init:", err)
		status = 125
	}
	if err := stop(byte(status)); err != nil {
		fmt.Println("init:", err) // returning, init makes the kernel panic, and the machine stops without a status
	}
}

// mount is one that the command needs.
type mount struct{ source, target, kind, data string }

func run() (status int, err error) {
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return 0, fmt.Errorf("list modules: %w", err)
	}
	for _, path := range modules { // in the order of their names
		if err := load(path); err != nil {
			return 0, fmt.Errorf("load %s: %w", path, err)
		}
	}
	for _, m := range []mount{
		{"root", root, "9p", "trans=virtio,version=9p2000.L,msize=262144,cache=loose"},
		{"proc", root + "/proc", "proc", ""},
		{"sys", root + "/sys", "sysfs", ""},
		{"dev", root + "/dev", "devtmpfs", ""},
		{"bpf", root + "/sys/fs/bpf", "bpf", ""},
		{"cgroup2", root + "/sys/fs/cgroup", "cgroup2", ""},
		{"tmp", root + temporary, "tmpfs", ""},
		{"run", root + "/run", "tmpfs", ""},
	} {
		var flags uintptr
		if m.kind == "9p" {
			flags = unix.MS_RDONLY
		}
		if err := unix.Mount(m.source, m.target, m.kind, flags, m.data); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	command, err := os.ReadFile("/command")
	if err != nil {
		return 0, fmt.Errorf("read the command: %w", err)
	}
	serial, err := os.OpenFile(root+"/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("open the first serial line: %w", err)
	}
	if err := unix.Chroot(root); err != nil {
		return 0, fmt.Errorf("enter the root file system: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return 0, fmt.Errorf("enter the root file system: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-ec", string(command))
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + temporary, "TMPDIR=" + temporary}
	cmd.Stdout, cmd.Stderr = serial, serial
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("run the command: %w", err)
	}
	if err := unix.IoctlSetInt(int(serial.Fd()), unix.TCSBRK, 1); err != nil { // what was written is on its way
		return 0, fmt.Errorf("drain the serial line: %w", err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err //nolint:wrapcheck // the caller names the file
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err //nolint:wrapcheck // the caller names the file
	}
	return nil
}

// stop writes to QEMU's device isa-debug-exit.
func stop(status byte) error {
	port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the ports: %w", err)
	}
	if _, err := port.WriteAt([]byte{status}, 0xf4); err != nil {
		return fmt.Errorf("end the machine: %w", err)
	}
	return nil
}
