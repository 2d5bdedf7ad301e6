// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// childEnv tells the re-executed binary its cgroup.
const childEnv = "FAIRLEAD_BENCH_CGROUP"

func socketChild() bool { return os.Getenv(childEnv) != "" }

// runSocketChild runs this binary again in a cgroup and network namespace of
// its own, so that no other process's sockets meet the measured programs.
func runSocketChild() (err error) {
	root, unmount, err := cgroupRoot()
	if err != nil {
		return err
	}
	defer unmount()
	dir := filepath.Join(root, fmt.Sprintf("fairlead-bench-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("making a cgroup: %w", err)
	}
	defer func() {
		for _, name := range groupNames { // left behind by a child that died
			_ = os.Remove(filepath.Join(dir, name))
		}
		err = errors.Join(err, os.Remove(dir))
	}()
	fd, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fd.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(fd.Fd()), Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("measuring in a process of its own: %w", err)
	}
	return nil
}

// cgroupRoot finds the v2 hierarchy, or mounts it for a moment.
func cgroupRoot() (root string, unmount func(), err error) {
	for _, p := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return p, func() {}, nil
		}
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-")
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mounting cgroup2: %w", err), os.Remove(dir))
	}
	return dir, func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = os.Remove(dir)
	}, nil
}

var groupNames = []string{"ours", "noop", "bare"}

// cgroups are the child's places to make sockets in.
type cgroups struct{ home, ours, noop, bare string }

// newCgroups also raises loopback, where the backends are.
func newCgroups() (*cgroups, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("finding loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("raising loopback: %w", err)
	}
	home := os.Getenv(childEnv)
	for _, name := range groupNames {
		if err := os.Mkdir(filepath.Join(home, name), 0o755); err != nil {
			return nil, err
		}
	}
	return &cgroups{
		home: home, ours: filepath.Join(home, "ours"),
		noop: filepath.Join(home, "noop"), bare: filepath.Join(home, "bare"),
	}, nil
}

// enter moves this process; its older sockets stay where they were made.
func enter(group string) error {
	pid := strconv.Itoa(os.Getpid())
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0); err != nil {
		return fmt.Errorf("entering cgroup %s: %w", group, err)
	}
	return nil
}

func (g *cgroups) remove() {
	_ = enter(g.home)
	for _, dir := range []string{g.ours, g.noop, g.bare} {
		_ = os.Remove(dir)
	}
}
