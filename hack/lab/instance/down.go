// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Down removes every trace of the instance. It goes by names and by what it
// finds on the machine, not by what the instance was meant to be, so it works
// on whatever a crash has left. Taking down what is not there is no error.
func Down(ctx context.Context, name string, progress io.Writer) error {
	if err := topology.ValidName(name); err != nil {
		return err
	}
	unlock, err := lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock(removeLock)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := newSteps(progress)
	e, err := find(name)
	if errors.Is(err, os.ErrNotExist) {
		s.done("there is no instance %s", name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := killAll(ctx, name, s); err != nil {
		return err
	}
	if err := removeNetwork(name); err != nil {
		return err
	}
	if err := removeState(e.Dir); err != nil {
		return err
	}
	if err := unregister(ctx, name, e); err != nil {
		return err
	}
	s.done("instance %s is gone", name)
	return nil
}

// find looks the instance up in the registry, which is written before anything
// else is made. A reboot empties the registry but leaves the state directory.
func find(name string) (entry, error) {
	e, err := readEntry(name)
	if !errors.Is(err, os.ErrNotExist) {
		return e, err
	}
	root, err := StateRoot()
	if err != nil {
		return e, err
	}
	e.Dir = filepath.Join(root, name)
	_, err = os.Stat(filepath.Join(e.Dir, specFile))
	return e, err
}

// killAll ends all processes of the instance. Everything it ever started was
// born in its cgroups, and so were their children, pods included.
func killAll(ctx context.Context, name string, s *steps) error {
	groups, err := process.FindCgroups(name + "-")
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := process.KillCgroup(ctx, g); err != nil {
			return err
		}
	}
	if len(groups) > 0 {
		s.done("processes ended, %d cgroups removed", len(groups))
	}
	return nil
}

func removeNetwork(name string) error {
	root, err := netlab.Open("")
	if err != nil {
		return err
	}
	defer root.Close()
	// The instance's name is all that its names depend on.
	in := &topology.Instance{Spec: topology.Spec{Name: name}}
	root.Delete(in.UplinkName())
	if err := root.Err(); err != nil {
		return err
	}
	files, err := filepath.Glob(netlab.Path(in.NetNS("*")))
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	for _, f := range files {
		if err := netlab.Remove(filepath.Base(f)); err != nil {
			return err
		}
	}
	return nil
}

func removeState(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "nodes", "*", "mnt.ns"))
	if err != nil {
		return fmt.Errorf("list mount namespaces: %w", err)
	}
	for _, f := range files {
		if err := netlab.RemoveMount(f); err != nil {
			return err
		}
	}
	// Something mounted there would be emptied by what follows.
	mounts, err := netlab.MountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove %s: still mounted below it: %s", dir, strings.Join(mounts, ", "))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	_ = os.Remove(filepath.Dir(dir)) // with the last instance
	return nil
}
