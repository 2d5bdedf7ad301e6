// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// OpenPinned opens the map that is pinned in dir under this name, whatever its
// size, if its layout is the one of this version. The error is fs.ErrNotExist
// or ebpf.ErrMapIncompatible otherwise.
func OpenPinned(dir, name string) (*ebpf.Map, error) {
	specs, err := MapSpecs()
	if err != nil {
		return nil, err
	}
	ms, ok := specs[name]
	if !ok {
		return nil, fmt.Errorf("there is no map %s", name)
	}
	return openPinned(dir, name, ms)
}

// openPinned returns fs.ErrNotExist when there is no such pin.
func openPinned(dir, name string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	if dir == "" {
		return nil, fs.ErrNotExist
	}
	return openPath(pinOf(dir, name), spec)
}

// OpenFormer opens the map that PinMaps will replace in dir. Errors are those
// of OpenPinned.
func OpenFormer(dir, name string) (*ebpf.Map, error) {
	specs, err := MapSpecs()
	if err != nil {
		return nil, err
	}
	return openPath(filepath.Join(dir, name), specs[name])
}

func openPath(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, err
	}
	want := *spec
	want.MaxEntries = m.MaxEntries() // an operator may have chosen another size
	if err := want.Compatible(m); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// nextDir holds maps that some programs use already, while others still use
// those that these replace.
const nextDir = "next"

// pinOf is where the map is that the newest programs use.
func pinOf(dir, name string) string {
	if isNext(dir, name) {
		return filepath.Join(dir, nextDir, name)
	}
	return filepath.Join(dir, name)
}

func isNext(dir, name string) bool {
	if dir == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(dir, nextDir, name))
	return err == nil
}

// PinNext pins maps that replace others, before the first program uses them:
// whoever is started next, should this process end, goes on with them.
func (m *Maps) PinNext(dir string, replaced []string) error {
	next := filepath.Join(dir, nextDir)
	if err := os.MkdirAll(next, 0o700); err != nil {
		return fmt.Errorf("making the directory of the next maps: %w", err)
	}
	all := m.ByName()
	for _, name := range replaced {
		if err := pinMap(all[name], next, name); err != nil {
			return fmt.Errorf("pinning map %s in %s: %w", name, next, err)
		}
	}
	return nil
}

// PinMaps pins every map in dir by its name, replacing older pins one rename
// at a time. Maps that are pinned there already stay as they are.
func (m *Maps) PinMaps(dir string) error {
	for name, field := range m.fields() {
		if err := pinMap(field.Interface().(*ebpf.Map), dir, name); err != nil {
			return fmt.Errorf("pinning map %s in %s: %w", name, dir, err)
		}
		if err := os.Remove(filepath.Join(dir, nextDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the other pin of map %s: %w", name, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, nextDir)); err != nil {
		return fmt.Errorf("removing the directory of the next maps: %w", err)
	}
	return nil
}

func pinMap(m *ebpf.Map, dir, name string) error {
	path := filepath.Join(dir, name)
	if old, err := ebpf.LoadPinnedMap(path, nil); err == nil {
		same, err := sameMap(m, old)
		old.Close()
		if err != nil {
			return err
		}
		if same {
			return nil
		}
	}
	tmp := path + "_new" // a BPF file system allows no dots
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.Pin(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return nil
}

func sameMap(a, b *ebpf.Map) (bool, error) {
	ai, err := a.Info()
	if err != nil {
		return false, err
	}
	bi, err := b.Info()
	if err != nil {
		return false, err
	}
	aid, aok := ai.ID()
	bid, bok := bi.ID()
	return aok && bok && aid == bid, nil
}
