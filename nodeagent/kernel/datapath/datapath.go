// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// DefaultDir is where everything is pinned.
const DefaultDir = "/sys/fs/bpf/fairlead"

// Mode is how programs sit on interfaces.
type Mode string

// The modes: Auto takes TCX where the kernel has it.
const (
	Auto   Mode = "auto"
	TCX    Mode = "tcx"
	Clsact Mode = "clsact"
)

// Config of the driver.
type Config struct {
	Dir   string            // DefaultDir if empty
	Mode  Mode              // Auto if empty
	Sizes map[string]uint32 // of maps that aren't to keep the size they have or get the default one, see [ParseSizes]
	Log   *slog.Logger
}

// Datapath is the open driver.
type Datapath struct {
	dir      string
	mode     Mode
	log      *slog.Logger
	maps     *bpf.Maps
	programs *bpf.Programs
	// replaced are maps of an older layout that the running programs still use, see Settle.
	replaced []string
	// outdated are the interfaces whose programs use them, by role.
	outdated map[table.Hook]struct{}
	carried  []carried
	copied   bool // before the first program was swapped

	mu    sync.Mutex
	own   map[string]bool      // links that bear this run's programs
	links map[string]link.Link // by pin name; a handle that nobody holds would be closed by the garbage collector
}

// Open mounts nothing and attaches nothing: it opens or makes the maps and loads the programs.
func Open(cfg Config) (*Datapath, error) {
	if cfg.Dir == "" {
		cfg.Dir = DefaultDir
	}
	if cfg.Mode == "" {
		cfg.Mode = Auto
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkKernel(cfg.Dir); err != nil {
		return nil, err
	}
	// Only kernels before 5.11 charge maps against this limit; failing to lift it is no reason to stop.
	if err := rlimit.RemoveMemlock(); err != nil {
		cfg.Log.Debug("the memory lock limit stays", "error", err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "links"), 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the pins: %w", err)
	}
	held, replaced, err := bpf.OpenMaps(cfg.Dir, cfg.Sizes)
	if err != nil {
		return nil, fmt.Errorf("opening maps in %s: %w", cfg.Dir, err)
	}
	if err := continueEpoch(cfg.Dir, held, replaced); err != nil {
		held.Close()
		return nil, err
	}
	programs, err := bpf.LoadPrograms(held)
	if err != nil {
		held.Close()
		return nil, fmt.Errorf("loading programs: %w", err)
	}
	d := &Datapath{
		dir: cfg.Dir, mode: cfg.Mode, log: cfg.Log, maps: held, programs: programs,
		replaced: replaced, links: map[string]link.Link{}, own: map[string]bool{},
	}
	if d.mode == Auto {
		d.mode = d.probeMode()
	}
	if len(replaced) == 0 {
		return d, d.pinMaps()
	}
	d.log.Warn("maps of another layout or size are replaced", "maps", replaced)
	if err := d.findOutdated(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if d.carried, err = carriedOver(cfg.Dir, held, replaced); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.giveUp(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// deciding are the maps that programs judge packets by and that the agent fills.
var deciding = []string{
	bpf.MapConfig, bpf.MapSubjects, bpf.MapGroups, bpf.MapClasses, bpf.MapIdentities, bpf.MapIpcache4, bpf.MapIpcache6,
	bpf.MapCIDR4, bpf.MapCIDR6, bpf.MapGuard4, bpf.MapGuard6, bpf.MapAddressEpochs, bpf.MapIfaces, bpf.MapLocals4,
	bpf.MapLocals6, bpf.MapPeers,
}

// giveUp swaps the programs of the former version at once if some of the deciding maps are replaced and others are not. The
// former programs would judge by their own maps and by shared ones that the agent rewrites, which don't fit together: a deny
// could miss. The new ones drop everything until the maps are filled. If all are replaced the former maps stay as they are,
// and the programs can wait; if none is there is nothing to wait for.
func (d *Datapath) giveUp() error {
	n := 0
	for _, name := range deciding {
		if slices.Contains(d.replaced, name) {
			n++
		}
	}
	if n == len(deciding) {
		return nil
	}
	if n > 0 {
		for h := range maps.Clone(d.outdated) {
			if err := d.Attach(h.Role, h.Ifindex); err != nil {
				return err
			}
		}
	}
	d.outdated = nil
	return nil
}

func (d *Datapath) findOutdated() error {
	d.outdated = map[table.Hook]struct{}{}
	for _, role := range []table.Role{table.RolePod, table.RoleTunnel, table.RoleUplink} {
		interfaces, err := d.Attached(role)
		if err != nil {
			return err
		}
		for _, ifindex := range interfaces {
			d.outdated[table.Hook{Role: role, Ifindex: ifindex}] = struct{}{}
		}
	}
	return nil
}

// Outdated says whether an interface bears programs that use maps which are to be replaced. They go on doing so until Attach:
// whoever calls it must have filled the new maps.
func (d *Datapath) Outdated(h table.Hook) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, outdated := d.outdated[h]
	return outdated
}

// continueEpoch lets a new fl_config go on from the old one's epoch: flows that outlive an upgrade bear epochs of the old
// map.
func continueEpoch(dir string, maps *bpf.Maps, replaced []string) error {
	if !slices.Contains(replaced, bpf.MapConfig) {
		return nil
	}
	epoch, err := bpf.PinnedEpoch(dir)
	if err != nil {
		return fmt.Errorf("going on from the policy epoch of the map that is replaced: %w", err)
	}
	if err := maps.Config.Put(uint32(0), &bpf.Config{PolicyEpoch: epoch, FullEpoch: epoch}); err != nil {
		return fmt.Errorf("writing map %s: %w", bpf.MapConfig, err)
	}
	return nil
}

// Sizes returns how many rows each map has room for.
func (d *Datapath) Sizes() map[string]uint32 {
	out := map[string]uint32{}
	for name, m := range d.maps.ByName() {
		out[name] = m.MaxEntries()
	}
	return out
}

// Mode says how programs are attached.
func (d *Datapath) Mode() Mode { return d.mode }

// Settle is called when the maps are filled and the programs attached. If an upgrade or another size replaced maps, only
// now are the new ones pinned: had it failed on the way, the old programs would go on with the old maps.
func (d *Datapath) Settle() error {
	if len(d.replaced) == 0 {
		return nil
	}
	if err := d.carry(); err != nil {
		return err
	}
	d.dropCarried()
	if err := d.pinMaps(); err != nil {
		return err
	}
	d.replaced = nil
	return nil
}

func (d *Datapath) pinMaps() error {
	if err := d.maps.PinMaps(d.dir); err != nil {
		return fmt.Errorf("pinning maps in %s: %w", d.dir, err)
	}
	return nil
}

// Close lets go of all handles. What is pinned goes on working.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, l := range d.links {
		errs = append(errs, l.Close())
	}
	d.dropCarried()
	d.programs.Close()
	d.maps.Close()
	return errors.Join(errs...)
}
