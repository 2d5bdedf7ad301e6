// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Size is how large a map is by default and what a row of it costs.
type Size struct {
	Map     string
	Default uint32 // rows
	// Row is the kernel's memory for one row, in bytes, its share of the hash table included.
	Row uint32
	// Preallocated maps cost all of their rows at once, the others those that are there.
	Preallocated bool
	// Fixed maps have the size that their index has, or hold a row.
	Fixed bool
}

// Total is what the map costs when it is full, in bytes.
func (s Size) Total() uint64 { return uint64(s.Default) * uint64(s.Row) }

// fixed maps are indexed by numbers of a fixed width, or have no rows to count.
var fixed = map[string]bool{
	bpf.MapConfig: true, bpf.MapPeers: true, bpf.MapSets: true, bpf.MapAddressEpochs: true, bpf.MapFence: true,
	bpf.MapDenied: true, bpf.MapEventSeen: true, bpf.MapSockPeer: true, bpf.MapMetrics: true, bpf.MapEvents: true, bpf.MapEventBudget: true,
	bpf.MapScratch: true,
}

// Sizes describes all maps, sorted by name.
func Sizes() ([]Size, error) {
	specs, err := bpf.MapSpecs()
	if err != nil {
		return nil, err
	}
	var out []Size
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		s := specs[name]
		if s.Type == ebpf.SkStorage || s.Type == ebpf.RingBuf || s.Type == ebpf.ArrayOfMaps || strings.HasPrefix(name, ".") {
			continue // no rows to count
		}
		out = append(out, Size{
			Map: name, Default: s.MaxEntries, Row: rowBytes(s), Fixed: fixed[name],
			Preallocated: s.Flags&noPrealloc == 0,
		})
	}
	return out, nil
}

const (
	noPrealloc = 1    // BPF_F_NO_PREALLOC
	hashHead   = 48   // struct htab_elem before the key, kernel/bpf/hashtab.c
	hashBucket = 16   // struct bucket; about one a row
	trieHead   = 40   // struct lpm_trie_node before the data, kernel/bpf/lpm_trie.c
	perCPU     = 8    // a pointer; the values lie apart, once a CPU
	allocMax   = 4096 // above it allocations are whole pages
)

// rowBytes estimates what a row costs. Rows of maps without preallocation come from bpf_mem_alloc or kmalloc, whose
// sizes are powers of two, 96 and 192 (kernel/bpf/memalloc.c).
func rowBytes(s *ebpf.MapSpec) uint32 {
	key, value := align8(s.KeySize), align8(s.ValueSize)
	switch s.Type {
	case ebpf.Array:
		return value
	case ebpf.PerCPUArray:
		return value // for each CPU
	case ebpf.LPMTrie:
		// A trie has up to one inner node for each row.
		return 2 * allocated(trieHead+(s.KeySize-4)+s.ValueSize)
	case ebpf.LRUCPUHash:
		return hashHead + key + perCPU + value + hashBucket // value for each CPU
	}
	row := hashHead + key + value
	if s.Flags&noPrealloc != 0 {
		row = allocated(row + 8) // bpf_mem_alloc keeps a list pointer before each
	}
	return row + hashBucket
}

func align8(n uint32) uint32 { return (n + 7) &^ 7 }

func allocated(n uint32) uint32 {
	switch {
	case n <= 8:
		return 8
	case n > 64 && n <= 96:
		return 96
	case n > 128 && n <= 192:
		return 192
	case n >= allocMax:
		return (n + allocMax - 1) &^ (allocMax - 1)
	}
	return 1 << bits.Len32(n-1)
}

// ErrSize says that a size is not one a map can have.
var ErrSize = errors.New("map size")

// ParseSizes reads "name=rows,…", as --map-sizes has it.
func ParseSizes(text string) (map[string]uint32, error) {
	all, err := Sizes()
	if err != nil || text == "" {
		return nil, err
	}
	out := map[string]uint32{}
	for part := range strings.SplitSeq(text, ",") {
		name, rows, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, fmt.Errorf("%w: %q is not of the form map=rows", ErrSize, part)
		}
		i := slices.IndexFunc(all, func(s Size) bool { return s.Map == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("%w: there is no map %q", ErrSize, name)
		case all[i].Fixed:
			return nil, fmt.Errorf("%w: the size of %s can't be chosen", ErrSize, name)
		}
		n, err := strconv.ParseUint(rows, 10, 32)
		if err != nil || n == 0 || n > maxRows {
			return nil, fmt.Errorf("%w: %s=%q: want 1 to %d rows", ErrSize, name, rows, maxRows)
		}
		out[name] = uint32(n)
	}
	return out, nil
}

// maxRows is more than any mesh has, and what a hash table of the kernel can still be allocated for.
const maxRows = 1 << 26

// SizesFor scales all maps that have a choice so that they cost about this many bytes when all are full. None gets less
// than a sixteenth of its default.
func SizesFor(memory uint64) (map[string]uint32, error) {
	all, err := Sizes()
	if err != nil {
		return nil, err
	}
	var total uint64
	for _, s := range all {
		if !s.Fixed {
			total += s.Total()
		}
	}
	out := map[string]uint32{}
	for _, s := range all {
		if s.Fixed {
			continue
		}
		rows := uint64(float64(s.Default) * float64(memory) / float64(total))
		rows = max(rows, uint64(s.Default)/16, 1)
		if rows > 1024 {
			rows &^= 1023 // so that a little more or less memory is the same size
		}
		out[s.Map] = uint32(min(rows, maxRows))
	}
	return out, nil
}

// ParseMemory reads a number of bytes, with KiB, MiB or GiB, or a percentage of the node's memory.
func ParseMemory(text string) (uint64, error) {
	unit := uint64(1)
	for suffix, n := range map[string]uint64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = rest, n
		}
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok && unit == 1 {
		n, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(n > 0 && n <= 50) {
			return 0, fmt.Errorf("%w: %q: want more than 0%% and at most 50%% of the memory", ErrSize, text)
		}
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return 0, fmt.Errorf("reading the node's memory: %w", err)
		}
		return uint64(float64(info.Totalram) * float64(info.Unit) * n / 100), nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 || n > 1<<40/unit {
		return 0, fmt.Errorf("%w: %q is no amount of memory", ErrSize, text)
	}
	return n * unit, nil
}
