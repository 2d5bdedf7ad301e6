// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

const registry = "/run/fairlead-lab"

// StateRoot is the directory that new instances get theirs in.
func StateRoot() (string, error) {
	root := os.Getenv("FAIRLEAD_STATE")
	if root == "" {
		root = "/var/lib/fairlead-lab"
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w", err)
	}
	// Nodes get a /run of their own and would not see it there.
	if root == "/run" || strings.HasPrefix(root, "/run/") {
		return "", fmt.Errorf("state directory %s: must not be below /run", root)
	}
	return root, nil
}

// entry is what the registry knows of an instance.
type entry struct {
	Index int    `json:"index"`
	Dir   string `json:"dir"`
	// MountPoints are the directories that this instance had to make on the
	// machine for its nodes to mount over.
	MountPoints []string `json:"mountPoints,omitempty"`
}

func entryFile(name string) string { return filepath.Join(registry, name+".json") }

func readEntry(name string) (entry, error) {
	var e entry
	raw, err := os.ReadFile(entryFile(name))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fmt.Errorf("read registry of instance %s: %w", name, err)
	}
	return e, nil
}

func (e entry) write(name string) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("register instance %s: %w", name, err)
	}
	next := filepath.Join(registry, "."+name+".new")
	if err := os.WriteFile(next, raw, 0o644); err != nil {
		return fmt.Errorf("register instance %s: %w", name, err)
	}
	return os.Rename(next, entryFile(name))
}

// register enters the instance, with a free index, unless it is there.
func register(name string) (entry, error) {
	root, err := StateRoot()
	if err != nil {
		return entry{}, err
	}
	unlock, err := lock("registry", true)
	if err != nil {
		return entry{}, err
	}
	defer unlock()
	dir := filepath.Join(root, name)
	e, err := readEntry(name)
	if err == nil {
		if e.Dir != dir {
			return entry{}, fmt.Errorf("instance %s exists with its state in %s, not in %s: choose another name", name, e.Dir, dir)
		}
		return e, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return entry{}, err
	}
	taken, err := indexes()
	if err != nil {
		return entry{}, err
	}
	e = entry{Dir: dir}
	for taken[e.Index] {
		e.Index++
	}
	// Before anything is made: from here on `down` knows of the instance.
	return e, e.write(name)
}

func indexes() (map[int]bool, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	for _, n := range names {
		e, err := readEntry(n)
		if err != nil {
			return nil, err
		}
		taken[e.Index] = true
	}
	return taken, nil
}

// Names lists the instances of this machine.
func Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(registry, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".json"); topology.ValidName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// lock takes the named lock for this process. Not waiting, it fails when
// another process has it.
func lock(name string, wait bool) (unlock func(), err error) {
	if err := os.MkdirAll(registry, 0o755); err != nil {
		return nil, fmt.Errorf("make registry: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(registry, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("instance %s is being changed by another process: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

// ensureMountPoints makes the directories that nodes mount over and notes
// which of them the machine did not have.
func ensureMountPoints(name string, e *entry, points []string) error {
	unlock, err := lock("registry", true)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range points {
		var missing []string
		for dir := p; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); err == nil {
				break
			}
			missing = append(missing, dir)
		}
		e.MountPoints = append(e.MountPoints, missing...)
	}
	if err := e.write(name); err != nil {
		return err
	}
	for _, p := range points {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	return nil
}

// unregister forgets the instance. The mount points it had made pass to
// another instance or, with the last one, go.
func unregister(name string, e entry) error {
	unlock, err := lock("registry", true)
	if err != nil {
		return err
	}
	defer unlock()
	others, err := Names()
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(n string) bool { return n == name })
	if len(others) > 0 {
		heir, err := readEntry(others[0])
		if err != nil {
			return err
		}
		heir.MountPoints = append(heir.MountPoints, e.MountPoints...)
		if err := heir.write(others[0]); err != nil {
			return err
		}
	} else {
		slices.SortFunc(e.MountPoints, func(a, b string) int { return len(b) - len(a) })
		for _, p := range e.MountPoints {
			_ = os.Remove(p) // only if nobody put anything there
		}
	}
	if err := os.Remove(entryFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unregister instance %s: %w", name, err)
	}
	return nil
}
