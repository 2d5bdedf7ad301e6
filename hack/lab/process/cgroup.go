// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// Hierarchies lists the mount points of all cgroup hierarchies: the unified
// one first, then those of version 1, if the machine has them.
func Hierarchies() ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", cgroupRoot, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupRoot}, nil
	}
	unified := filepath.Join(cgroupRoot, "unified")
	if err := unix.Statfs(unified, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fmt.Errorf("no cgroup2 at %s nor at %s: mount it (mount -t cgroup2 cgroup2 %s)", cgroupRoot, unified, unified)
	}
	all := []string{unified}
	dirs, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	for _, d := range dirs {
		dir := filepath.Join(cgroupRoot, d.Name())
		if d.IsDir() && unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC {
			all = append(all, dir)
		}
	}
	return all, nil
}

// Unified is the mount point of the cgroup2 hierarchy.
func Unified() (string, error) {
	all, err := Hierarchies()
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// EnsureCgroup makes the cgroup in every hierarchy.
func EnsureCgroup(name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, root := range all {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// A new version 1 cpuset holds no processors and takes no process
		// until it is given some.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
			}
			if err != nil {
				return fmt.Errorf("fill %s of cgroup %s: %w", file, name, err)
			}
		}
	}
	return nil
}

// systemCgroup is the child that the lab's own processes live in: beside the
// pods' cgroups, so that a kubelet may give controllers to all of them.
const systemCgroup = "system"

func openCgroup(name string) (*os.File, error) {
	root, err := Unified()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name, systemCgroup)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// Join puts the calling process into the cgroup, so that a command run by
// hand inside a node ends with its instance.
func Join(name string) error {
	dir, err := openCgroup(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return os.WriteFile(filepath.Join(dir.Name(), "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// FindCgroups lists the names of top-level cgroups with the prefix, in any
// hierarchy.
func FindCgroups(prefix string) ([]string, error) {
	all, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var names []string
	for _, root := range all {
		dirs, err := filepath.Glob(filepath.Join(root, prefix+"*"))
		if err != nil {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, dir := range dirs {
			if name := filepath.Base(dir); !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// KillCgroup kills every process below the cgroup, in every hierarchy, and
// removes the cgroup.
func KillCgroup(ctx context.Context, name string) error {
	all, err := Hierarchies()
	if err != nil {
		return err
	}
	for {
		left := 0
		for _, root := range all {
			left += killBelow(filepath.Join(root, name))
		}
		if left == 0 {
			break
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d processes of cgroup %s survive: %w", left, name, err)
		}
	}
	for _, root := range all {
		if err := removeTree(ctx, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

func killBelow(dir string) int {
	// Kills the whole tree at once, so that nothing can fork its way out.
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0o200)
	pids := PIDs(dir)
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return len(pids)
}

// PIDs lists the processes at and below a cgroup's directory.
func PIDs(dir string) []int {
	var pids []int
	for _, d := range tree(dir) {
		raw, _ := os.ReadFile(filepath.Join(d, "cgroup.procs")) // gone with its cgroup
		for _, line := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// tree lists a cgroup's directory and those below it, each before its
// children. Cgroups that vanish while it looks are left out.
func tree(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // whatever has vanished needs no more attention
	})
	return dirs
}

// removeTree removes a cgroup and those below it, deepest first. A dying
// process holds its cgroup a moment longer than its pid.
func removeTree(ctx context.Context, dir string) error {
	for {
		dirs := tree(dir)
		if len(dirs) == 0 {
			return nil
		}
		var last error
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, os.ErrNotExist) {
				last = err
			}
		}
		if last == nil {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("remove cgroup: %w", last)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}
