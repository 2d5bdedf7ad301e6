// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// MountNS describes a node's view of the file system: the machine's own, with
// a private /run, a private bpf file system, the /sys of the node's network
// namespace, and some directories bound over.
type MountNS struct {
	File  string // where the namespace is kept
	NetNS string // whose devices /sys/class/net shows
	Binds map[string]string
}

// Mounted tells whether the mount namespace kept at file is there.
func Mounted(file string) bool { return isNamespace(file) }

// EnsureMount makes the mount namespace unless it is there. The file appears
// only once everything is mounted, so a namespace is never found half made.
func EnsureMount(m MountNS) error {
	if Mounted(m.File) {
		return nil
	}
	for target, source := range m.Binds {
		if err := os.MkdirAll(source, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", source, err)
		}
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make mount point %s: %w", target, err)
		}
	}
	if err := touch(m.File); err != nil {
		return err
	}
	// The namespace can only be bound into the root namespace's tree by a
	// thread that still is in the root namespace.
	made, bound := make(chan string), make(chan error, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- onThread(func() error {
			if err := m.enter(); err != nil {
				return err
			}
			made <- threadNS("mnt")
			return <-bound
		})
	}()
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("make mount namespace %s: %w", m.File, err), os.Remove(m.File))
	case ns := <-made:
		err := unix.Mount(ns, m.File, "", unix.MS_BIND, "")
		bound <- err
		if err := <-failed; err != nil {
			return fmt.Errorf("keep mount namespace %s: %w", m.File, err)
		}
		return nil
	}
}

// RemoveMount lets go of the mount namespace; its mounts go with the last
// process in it.
func RemoveMount(file string) error { return releaseNS(file) }

func (m MountNS) enter() error {
	if err := enterNet(m.NetNS); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := dropNamespaces(); err != nil {
		return err
	}
	for _, target := range sortedKeys(m.Binds) {
		if err := unix.Mount(m.Binds[target], target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", target, err)
		}
	}
	if err := mountKernel(); err != nil {
		return err
	}
	// Shared, once everything is in its place: volumes with bidirectional
	// propagation must show in the containers, as on a machine that booted
	// with systemd.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	return nil
}

// mountKernel mounts what a booted machine has of its own. A fresh /sys shows
// the devices of the network namespace it is mounted from; the cgroup mounts
// below the old one are carried over.
func mountKernel() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/containerd", "/run/lock", "/run/cgroup.tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	const keep = "/run/cgroup.tmp"
	steps := []struct {
		what                   string
		source, target, fstype string
		flags                  uintptr
	}{
		{"keep the cgroup mounts", "/sys/fs/cgroup", keep, "", unix.MS_BIND | unix.MS_REC},
		{"mount /sys", "sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"restore the cgroup mounts", keep, "/sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC},
		{"mount /sys/fs/bpf", "bpf", "/sys/fs/bpf", "bpf", 0},
	}
	for _, s := range steps {
		if err := unix.Mount(s.source, s.target, s.fstype, s.flags, ""); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	if err := unix.Unmount(keep, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the cgroup mounts' second place: %w", err)
	}
	// Tracing is a help to debuggers; a kernel may lack it.
	_ = unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "")
	return os.Remove(keep)
}

// dropNamespaces unmounts the copies of all namespace files: a copy in a
// long-lived mount namespace would keep the namespaces of instances alive
// that have long been removed.
func dropNamespaces() error {
	points, err := mountPoints(func(fstype, _ string) bool { return fstype == "nsfs" })
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// MountsBelow lists the mount points below dir in the caller's namespace,
// deepest first.
func MountsBelow(dir string) ([]string, error) {
	return mountPoints(func(_, point string) bool { return strings.HasPrefix(point, dir+"/") })
}

func mountPoints(want func(fstype, point string) bool) ([]string, error) {
	// The calling thread's table: it may have left the process's namespace.
	file := fmt.Sprintf("/proc/%d/task/%d/mountinfo", os.Getpid(), unix.Gettid())
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// id parent dev root POINT options [tags] - FSTYPE source super
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		fstype, _, _ := strings.Cut(after, " ")
		if want(fstype, fields[4]) {
			points = append(points, fields[4])
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	return points, lines.Err()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
