// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

var update = flag.Bool("update", false, "write the table of docs/reference/map-sizes.md")

const sizesDoc = "../../../docs/reference/map-sizes.md"

const (
	tableBegin = "<!-- go test ./nodeagent/kernel/datapath -run TheSizes -update -->\n"
	tableEnd   = "<!-- end -->\n"
)

// The table in the reference is what bpf/include/fairlead/maps.h comes to.
func TestTheSizesAreDocumented(t *testing.T) {
	all, err := Sizes()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| map | default rows | bytes a row | full | room |\n|---|---|---|---|---|\n")
	for _, s := range all {
		room := "as rows come"
		if s.Preallocated {
			room = "at once"
		}
		if s.Fixed {
			room += ", fixed"
		}
		fmt.Fprintf(&b, "| `%s` | %d | %d | %.1f MiB | %s |\n", s.Map, s.Default, s.Row, float64(s.Total())/(1<<20), room)
	}
	have, err := os.ReadFile(sizesDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(have), tableBegin)
	_, after, end := strings.Cut(rest, tableEnd)
	if !ok || !end {
		t.Fatalf("%s has no table between %q and %q", sizesDoc, tableBegin, tableEnd)
	}
	want := before + tableBegin + b.String() + tableEnd + after
	if want == string(have) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what maps.h comes to: run go test ./nodeagent/kernel/datapath -run TheSizes -update", sizesDoc)
	}
	if err := os.WriteFile(sizesDoc, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParseSizes(t *testing.T) {
	got, err := ParseSizes("fl_ct4=1000, fl_groups=7")
	if err != nil || len(got) != 2 || got[bpf.MapCT4] != 1000 || got[bpf.MapGroups] != 7 {
		t.Errorf("sizes = %v, %v", got, err)
	}
	for _, bad := range []string{"fl_ct4", "fl_ct4=", "fl_ct4=0", "fl_ct4=-1", "fl_nobody=3", "fl_config=2", "fl_ct4=99999999999"} {
		if _, err := ParseSizes(bad); !errors.Is(err, ErrSize) {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

func TestParseMemory(t *testing.T) {
	for text, want := range map[string]uint64{"1000": 1000, "3KiB": 3072, "512MiB": 512 << 20, "2GiB": 2 << 30} {
		if got, err := ParseMemory(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	half, err := ParseMemory("50%")
	if err != nil {
		t.Fatal(err)
	}
	if tenth, err := ParseMemory("5%"); err != nil || tenth < half/10-1 || tenth > half/10+1 {
		t.Errorf("5%% is %d, 50%% is %d (%v)", tenth, half, err)
	}
	for _, bad := range []string{"", "0", "-1", "x", "0%", "60%", "NaN%", "5%MiB", "99999999999GiB", "1.5GiB"} {
		if got, err := ParseMemory(bad); !errors.Is(err, ErrSize) {
			t.Errorf("%q is %d, %v", bad, got, err)
		}
	}
}

func TestSizesForMemory(t *testing.T) {
	all, err := Sizes()
	if err != nil {
		t.Fatal(err)
	}
	for _, memory := range []uint64{64 << 20, 256 << 20, 4 << 30} {
		sizes, err := SizesFor(memory)
		if err != nil {
			t.Fatal(err)
		}
		var total uint64
		for _, s := range all {
			if !s.Fixed {
				total += uint64(sizes[s.Map]) * uint64(s.Row)
			}
		}
		if total > memory+memory/50 || total < memory*9/10 {
			t.Errorf("%d MiB asked for, the maps come to %d MiB", memory>>20, total>>20)
		}
	}
}

// What a row costs is what the kernel says that it costs.
func TestTheKernelAgreesOnWhatARowCosts(t *testing.T) {
	specs, err := bpf.MapSpecs()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Sizes()
	if err != nil {
		t.Fatal(err)
	}
	const rows = 2048
	for _, s := range all {
		spec := specs[s.Map].Copy()
		if s.Fixed || spec.Type == ebpf.LRUCPUHash {
			continue // the latter depends on the number of CPUs
		}
		spec.MaxEntries = rows
		m, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatalf("making map %s: %v", s.Map, err)
		}
		fill(t, m, spec, rows)
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		used, ok := info.Memlock()
		if !ok {
			t.Fatalf("the kernel doesn't say what map %s costs", s.Map)
		}
		most := 2.5
		if spec.Type == ebpf.LPMTrie {
			most = 4.5 // the kernel counts neither inner nodes nor what the allocator rounds up
		}
		if got := float64(used) / rows; float64(s.Row) < got*0.9 || float64(s.Row) > got*most {
			t.Errorf("%s: a row costs %.0f bytes by the kernel's count, %d by ours", s.Map, got, s.Row)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func fill(t *testing.T, m *ebpf.Map, spec *ebpf.MapSpec, rows uint32) {
	t.Helper()
	key, value := make([]byte, spec.KeySize), make([]byte, spec.ValueSize)
	for i := range rows {
		at := key
		if spec.Type == ebpf.LPMTrie {
			binary.LittleEndian.PutUint32(key, (spec.KeySize-4)*8)
			at = key[spec.KeySize-4:]
		}
		if spec.Type == ebpf.LPMTrie {
			binary.BigEndian.PutUint32(at, i)
		} else {
			binary.LittleEndian.PutUint32(at, i)
		}
		if err := m.Put(key, value); err != nil {
			t.Fatalf("row %d of map %s: %v", i, spec.Name, err)
		}
	}
}
