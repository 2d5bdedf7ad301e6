// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// bpffs mounts a private BPF file system.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mounting bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting bpffs: %v", err)
		}
	})
	return dir
}

func openMaps(t *testing.T, dir string, sizes map[string]uint32) (*Maps, []string) {
	t.Helper()
	m, replaced, _, err := OpenMaps(dir, sizes)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(m.Close)
	return m, replaced
}

func epochOf(t *testing.T, m *Maps) uint32 {
	t.Helper()
	var cfg Config
	if err := m.Config.Lookup(uint32(0), &cfg); err != nil {
		t.Fatal(err)
	}
	return cfg.PolicyEpoch
}

func TestMapsSurviveARestart(t *testing.T) {
	dir := bpffs(t)
	first, _ := openMaps(t, dir, map[string]uint32{MapCT4: 1000})
	if err := first.Config.Put(uint32(0), &Config{PolicyEpoch: 7}); err != nil {
		t.Fatal(err)
	}
	if err := first.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	first.Close()

	second, replaced := openMaps(t, dir, nil)
	if len(replaced) != 0 {
		t.Errorf("replaced %v, want all maps found again", replaced)
	}
	if got := epochOf(t, second); got != 7 {
		t.Errorf("policy epoch %d after the restart, want 7", got)
	}
	if got := second.CT4.MaxEntries(); got != 1000 {
		t.Errorf("flow table of %d entries, want the pinned one's 1000: nobody asked for another size", got)
	}
	if p, err := LoadPrograms(second); err != nil {
		t.Errorf("programs with an older size: %+v", err)
	} else {
		p.Close()
	}
	if err := second.PinMaps(dir); err != nil {
		t.Errorf("pinning what is pinned: %v", err)
	}
}

// A map that is to have another size stays in its place, for the programs that run with it, until the new one is pinned.
func TestAnotherSizeIsAnotherMap(t *testing.T) {
	dir := bpffs(t)
	first, _ := openMaps(t, dir, map[string]uint32{MapCT4: 1000})
	if err := first.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	second, replaced := openMaps(t, dir, map[string]uint32{MapCT4: 2000})
	if !slices.Equal(replaced, []string{MapCT4}) || second.CT4.MaxEntries() != 2000 {
		t.Errorf("replaced %v, flow table of %d entries", replaced, second.CT4.MaxEntries())
	}
	pinned, err := OpenPinned(dir, MapCT4)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if got := pinned.MaxEntries(); got != 1000 {
		t.Errorf("a flow table of %d entries is pinned before anybody said so", got)
	}
	if err := second.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	if third, replaced := openMaps(t, dir, nil); len(replaced) != 0 || third.CT4.MaxEntries() != 2000 {
		t.Errorf("after pinning: replaced %v, flow table of %d entries", replaced, third.CT4.MaxEntries())
	}
}

// A map of another layout stays in its place, for the programs that run with
// it, until the new one is ready.
func TestMapOfAnotherLayoutIsReplacedInTheEnd(t *testing.T) {
	dir := bpffs(t)
	first, _ := openMaps(t, dir, nil)
	if err := first.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	pin := filepath.Join(dir, MapConfig)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	if err := old.Pin(pin); err != nil {
		t.Fatal(err)
	}
	crashed, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer crashed.Close()
	if err := crashed.Pin(pin + "_new"); err != nil { // as an interrupted PinMaps leaves it
		t.Fatal(err)
	}

	second, replaced := openMaps(t, dir, nil)
	if slices.Sort(replaced); !slices.Equal(replaced, slices.Sorted(slices.Values(SetOf(MapConfig)))) {
		t.Fatalf("replaced %v, want those of the set of %s", replaced, MapConfig)
	}
	if same, err := pinnedIs(pin, old); err != nil || !same {
		t.Errorf("the old map left its place too early (%v)", err)
	}
	if err := second.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	if same, err := pinnedIs(pin, second.Config); err != nil || !same {
		t.Errorf("the new map is not in its place (%v)", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*_new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func pinnedIs(path string, m *ebpf.Map) (bool, error) {
	p, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return false, err
	}
	defer p.Close()
	return sameMap(m, p)
}
