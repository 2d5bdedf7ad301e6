// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// live is a setup that is up.
type live struct {
	setup  Setup
	node   *process.Child
	state  NodeState
	cgroup string
}

// bench is all setups at once, so that rounds can go from one to the next within milliseconds.
type bench struct {
	dir    string
	cgroup string // of this bench; setups have theirs below it
	home   string // where this process was
	setups []*live
	server *process.Child
}

// open starts setups. Close it, also after an error.
func open(dir string, setups []Setup, say func(string, ...any)) (*bench, error) {
	b := &bench{dir: dir}
	if err := os.MkdirAll(b.bpffs(), 0o700); err != nil {
		return b, fmt.Errorf("prepare %s: %w", dir, err)
	}
	if err := unix.Mount("bpf", b.bpffs(), "bpf", 0, "mode=0700"); err != nil {
		return b, fmt.Errorf("mount a BPF file system (as root?): %w", err)
	}
	if err := b.makeCgroup(); err != nil {
		return b, err
	}
	var servers ServerConfig
	for i, w := range setups {
		l, err := b.start(i, w)
		if err != nil {
			return b, fmt.Errorf("%s, %d services: %w", w.Name, w.Services, err)
		}
		servers.Namespaces = append(servers.Namespaces, l.state.Server)
		say("%s, %d services: ready after %s", w.Name, w.Services, l.state.Programmed.Round(100_000))
	}
	var err error
	b.server, err = process.Start(roleServer, dir, servers, 0)
	return b, err
}

func (b *bench) bpffs() string { return filepath.Join(b.dir, "bpf") }

func (b *bench) start(i int, w Setup) (*live, error) {
	l := &live{setup: w, cgroup: filepath.Join(b.cgroup, fmt.Sprintf("setup-%d", i))}
	if err := os.Mkdir(l.cgroup, 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	b.setups = append(b.setups, l)
	if w.Agent && w.Cgroup != "" {
		w.Cgroup = l.cgroup
	}
	dir := filepath.Join(b.dir, fmt.Sprint(i))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	cfg := NodeConfig{Setup: w, Pins: filepath.Join(b.bpffs(), fmt.Sprint(i))}
	node, err := process.StartAsking(roleNode, dir, cfg, &l.state, unix.CLONE_NEWNET)
	if err != nil {
		return nil, err
	}
	l.node = node
	if w.Policy {
		return l, awaitHooks(cfg.Pins)
	}
	return l, nil
}

// awaitHooks waits until both pods' interfaces bear programs: they are attached when the pods were found, which nobody
// else says.
func awaitHooks(pins string) error {
	const both = 4 // an egress and an ingress hook each
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		found := 0
		for _, hook := range []bpf.Hook{bpf.HookPodEgress, bpf.HookPodIngress} {
			links, err := filepath.Glob(filepath.Join(pins, "links", hook.String()+"-*"))
			if err != nil {
				return fmt.Errorf("list pinned links: %w", err)
			}
			found += len(links)
		}
		if found >= both {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d programs are attached to the pods after %s", found, both, limit)
		}
	}
}

// close takes everything down. Namespaces end with the processes that hold them.
func (b *bench) close() error {
	for _, l := range b.setups {
		if l.node != nil {
			l.node.Stop()
		}
	}
	if b.server != nil {
		b.server.Stop()
	}
	var errs []error
	if b.home != "" {
		errs = append(errs, enter(b.home))
	}
	for _, l := range b.setups {
		errs = append(errs, ignoreMissing(os.Remove(l.cgroup)))
	}
	if b.cgroup != "" {
		errs = append(errs, ignoreMissing(os.Remove(b.cgroup)))
	}
	if err := unix.Unmount(b.bpffs(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		errs = append(errs, fmt.Errorf("unmount the BPF file system: %w", err))
	}
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// makeCgroup finds the v2 hierarchy and makes a place of the bench's own in it.
func (b *bench) makeCgroup() error {
	root := ""
	for _, p := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			root = p
			break
		}
	}
	if root == "" {
		return errors.New("no cgroup2 file system is mounted at /sys/fs/cgroup or below it")
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("find this process's cgroup: %w", err)
	}
	b.home = root
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			b.home = filepath.Join(root, path)
		}
	}
	b.cgroup = filepath.Join(root, "fairlead-connections-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(b.cgroup, 0o755); err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	return nil
}

// enter moves this process; its older sockets stay where they were made.
func enter(group string) error {
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("enter cgroup %s: %w", group, err)
	}
	return nil
}
