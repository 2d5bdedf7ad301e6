// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/cilium/ebpf"
)

// OpenMaps opens the maps pinned in dir by an earlier run, and creates those
// that are missing. An empty dir keeps all of them private (tests).
//
// A pinned map whose layout this version doesn't understand is left alone: a
// fresh one is made instead and its name returned in replaced. The running
// programs keep using the old one until they are swapped; the caller fills the
// new one, swaps the programs, then calls PinMaps. So neither an upgrade nor a
// failed upgrade ever empties a map under a running program. When fl_config is
// among them, its epochs go on from PinnedEpoch.
//
// sizes overrides max_entries by map name. A pinned map that has another size
// than asked is replaced like one of another layout; one that no size is asked
// for keeps its own.
func OpenMaps(dir string, sizes map[string]uint32) (m *Maps, replaced []string, err error) {
	spec, err := loadMaps()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the embedded maps object: %w", err)
	}
	m = &Maps{}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	for name, field := range m.fields() {
		ms := spec.Maps[name]
		if n, ok := sizes[name]; ok {
			ms.MaxEntries = n
		}
		pinned, err := openPinned(dir, name, ms)
		if n, asked := sizes[name]; asked && err == nil && pinned.MaxEntries() != n {
			pinned.Close()
			err = ebpf.ErrMapIncompatible
		}
		switch {
		case err == nil:
			field.Set(reflect.ValueOf(pinned))
			continue
		case errors.Is(err, ebpf.ErrMapIncompatible):
			replaced = append(replaced, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, fmt.Errorf("opening pinned map %s: %w", name, err)
		}
		fresh, err := ebpf.NewMap(ms)
		if err != nil {
			return nil, nil, fmt.Errorf("creating map %s: %w", name, err)
		}
		field.Set(reflect.ValueOf(fresh))
	}
	return m, replaced, nil
}

// MapSpecs describes every map as maps.h defines it, by name.
func MapSpecs() (map[string]*ebpf.MapSpec, error) {
	spec, err := loadMaps()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded maps object: %w", err)
	}
	return spec.Maps, nil
}

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
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
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

// PinMaps pins every map in dir by its name, replacing older pins one rename
// at a time. Maps that are pinned there already stay as they are.
func (m *Maps) PinMaps(dir string) error {
	for name, field := range m.fields() {
		if err := pinMap(field.Interface().(*ebpf.Map), dir, name); err != nil {
			return fmt.Errorf("pinning map %s in %s: %w", name, dir, err)
		}
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

// Close releases the handles. Pinned maps and running programs live on.
func (m *Maps) Close() {
	for _, field := range m.fields() {
		if h, _ := field.Interface().(*ebpf.Map); h != nil {
			h.Close()
		}
	}
}

// ByName returns the maps keyed by their names.
func (m *Maps) ByName() map[string]*ebpf.Map {
	out := map[string]*ebpf.Map{}
	for name, field := range m.fields() {
		out[name] = field.Interface().(*ebpf.Map)
	}
	return out
}

// fields yields the struct's fields by the names of their maps.
func (m *Maps) fields() func(yield func(string, reflect.Value) bool) {
	return taggedFields(reflect.ValueOf(m).Elem())
}

func taggedFields(v reflect.Value) func(yield func(string, reflect.Value) bool) {
	return func(yield func(string, reflect.Value) bool) {
		for i := range v.NumField() {
			if !yield(v.Type().Field(i).Tag.Get("ebpf"), v.Field(i)) {
				return
			}
		}
	}
}
