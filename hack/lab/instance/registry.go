// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

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
	// Debt is what this instance changed on the machine itself.
	Debt debt `json:"debt"`
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
func register(ctx context.Context, name string) (entry, error) {
	root, err := StateRoot()
	if err != nil {
		return entry{}, err
	}
	unlock, err := lock(ctx, registryLock)
	if err != nil {
		return entry{}, err
	}
	defer unlock(keepLock)
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

// unregister forgets the instance. What it changed on the machine passes to
// another instance or, with the last one, is undone.
func unregister(ctx context.Context, name string, e entry) error {
	unlock, err := lock(ctx, registryLock)
	if err != nil {
		return err
	}
	last := false
	defer func() { unlock(last) }()
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
		heir.Debt.add(e.Debt)
		if err := heir.write(others[0]); err != nil {
			return err
		}
	} else {
		last = true
		e.Debt.settle()
	}
	if err := os.Remove(entryFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unregister instance %s: %w", name, err)
	}
	return nil
}
