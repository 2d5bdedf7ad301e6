// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// ErrNoCgroup says that there is no cgroup2 hierarchy, or that this node's part of it can't be told.
var ErrNoCgroup = errors.New("the node's cgroup2 subtree is unknown")

// FindCgroup returns the cgroup2 directory that holds every pod of this node: the part of the agent's own path before
// "kubepods", below the mount of the hierarchy. A kernel may be shared by several nodes, so it is never simply the root.
func FindCgroup() (string, error) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("reading the agent's own cgroup: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("reading mounts: %w", err)
	}
	var tried []string
	candidates, err := nodeCgroups(string(self), string(mounts))
	if err != nil {
		return "", err
	}
	for _, dir := range candidates {
		// cgroup.procs is in every cgroup of the v2 hierarchy; a mount hidden below another one has it not.
		if _, err := os.Stat(path.Join(dir, "cgroup.procs")); err == nil {
			return dir, nil
		}
		tried = append(tried, dir)
	}
	return "", fmt.Errorf("%w: not in %s; mount the host's /sys/fs/cgroup or give --cgroup-root", ErrNoCgroup, strings.Join(tried, ", "))
}

// nodeCgroups returns where the node's subtree may be, likeliest first.
func nodeCgroups(self, mountinfo string) ([]string, error) {
	own, ok := unifiedPath(self)
	if !ok {
		return nil, fmt.Errorf("%w: this kernel has no cgroup2 hierarchy", ErrNoCgroup)
	}
	node, err := beforePods(own)
	if err != nil {
		return nil, err
	}
	var dirs []string
	scanner := bufio.NewScanner(strings.NewReader(mountinfo))
	for scanner.Scan() {
		root, point, ok := cgroup2Mount(scanner.Text())
		if !ok {
			continue
		}
		if rel, ok := below(node, root); ok {
			dirs = append(dirs, path.Join(point, rel))
		}
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("%w: no cgroup2 file system is mounted here that holds %s", ErrNoCgroup, node)
	}
	return dirs, nil
}

// unifiedPath finds the line "0::<path>".
func unifiedPath(self string) (string, bool) {
	for line := range strings.Lines(self) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return p, true
		}
	}
	return "", false
}

// beforePods cuts the path before the component that holds the pods (kubepods, kubepods.slice, or with a prefix of
// kubelet's, e.g. kubelet-kubepods.slice).
func beforePods(own string) (string, error) {
	if own == "/" {
		return own, nil // a namespace of our own: its root is all we can see
	}
	parts := strings.Split(strings.Trim(own, "/"), "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "kubepods") || strings.Contains(part, "-kubepods") {
			return "/" + strings.Join(parts[:i], "/"), nil
		}
	}
	return "", fmt.Errorf("%w: the agent runs in %s, which is no pod's; give --cgroup-root", ErrNoCgroup, own)
}

// cgroup2Mount parses a line of mountinfo: id parent major:minor root mountpoint options … - fstype source options.
func cgroup2Mount(line string) (root, point string, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	if !found || !strings.HasPrefix(after, "cgroup2 ") {
		return "", "", false
	}
	fields := strings.Fields(before)
	if len(fields) < 5 {
		return "", "", false
	}
	return fields[3], fields[4], true
}

// below returns what is left of node below root.
func below(node, root string) (string, bool) {
	if root == "/" {
		return node, true
	}
	if node == root {
		return "/", true
	}
	rel, ok := strings.CutPrefix(node, root+"/")
	return rel, ok
}
