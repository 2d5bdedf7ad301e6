// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
)

// OpenMaps opens the maps pinned in dir by an earlier run, and creates those
// that are missing. An empty dir keeps all of them private (tests).
//
// A pinned map whose layout this version doesn't understand is left alone, and
// so is one of another size than asked; a fresh one is made instead. Maps that
// only make sense together (see sets) are replaced together. The running
// programs keep the old ones to themselves until they are swapped; the caller
// fills the new ones, calls PinNext, swaps the programs, then calls PinMaps. So
// neither an upgrade nor a failed one ever empties a map under a running
// program. The names of maps that wait for PinMaps are in replaced; those that
// no earlier run has pinned with PinNext are in fresh as well.
//
// sizes overrides max_entries by map name. A map that no size is asked for
// keeps its own.
func OpenMaps(dir string, sizes map[string]uint32) (m *Maps, replaced, fresh []string, err error) {
	specs, err := MapSpecs()
	if err != nil {
		return nil, nil, nil, err
	}
	m = &Maps{}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	found := map[string]*ebpf.Map{}
	bad := map[string]bool{}
	for name := range m.fields() {
		ms := specs[name]
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
			found[name] = pinned
		case errors.Is(err, ebpf.ErrMapIncompatible):
			bad[name] = true
		case !errors.Is(err, fs.ErrNotExist):
			closeAll(found)
			return nil, nil, nil, fmt.Errorf("opening pinned map %s: %w", name, err)
		}
	}
	for name := range alsoReplaced(found, bad) {
		found[name].Close()
		delete(found, name)
		bad[name] = true
	}
	for name, field := range m.fields() {
		if pinned, ok := found[name]; ok {
			field.Set(reflect.ValueOf(pinned))
			if isNext(dir, name) {
				replaced = append(replaced, name)
			}
			continue
		}
		made, err := ebpf.NewMap(specs[name])
		if err != nil {
			closeAll(found)
			return nil, nil, nil, fmt.Errorf("creating map %s: %w", name, err)
		}
		field.Set(reflect.ValueOf(made))
		if bad[name] {
			replaced, fresh = append(replaced, name), append(fresh, name)
		}
	}
	return m, replaced, fresh, nil
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// sets are maps whose rows refer to each other by numbers that the agent gives
// away. A program must not use one of an old set beside one of a new set.
var sets = [][]string{
	{
		MapConfig, MapSubjects, MapGroups, MapClasses, MapSets, MapIdentities, MapIpcache4, MapIpcache6, MapCIDR4, MapCIDR6,
		MapBlocks4, MapBlocks6,
		MapGuard4, MapGuard6, MapAddressEpochs, MapIfaces, MapLocals4, MapLocals6, MapPeers,
	},
	{MapServices4, MapServices6, MapSlots, MapAffinity},
}

// SetOf returns the names of the maps that are replaced together with one,
// itself among them.
func SetOf(name string) []string {
	for _, set := range sets {
		if slices.Contains(set, name) {
			return set
		}
	}
	return []string{name}
}

// alsoReplaced are maps that were found and belong to a set of which a part is
// bad, or missing.
func alsoReplaced(found map[string]*ebpf.Map, bad map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(name string) bool { return found[name] == nil }) {
			continue
		}
		for _, name := range set {
			if found[name] != nil {
				out[name] = true
			} else if !bad[name] && slices.ContainsFunc(set, func(o string) bool { return found[o] != nil || bad[o] }) {
				bad[name] = true // this version has a map that the former one had not
			}
		}
	}
	return out
}

// MapSpecs describes every map as maps.h defines it, by name.
func MapSpecs() (map[string]*ebpf.MapSpec, error) {
	spec, err := loadMaps()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded maps object: %w", err)
	}
	return spec.Maps, nil
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
