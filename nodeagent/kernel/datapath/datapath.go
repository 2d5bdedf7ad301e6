// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
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
	// replaced are maps that take the place of others when all programs use them, see Settle.
	replaced []string
	// outdated are the hooks with programs that use the others to judge by.
	outdated map[table.Hook]struct{}
	carried  []carried
	begun    bool // a program uses the maps, or is about to

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
	held, replaced, fresh, err := bpf.OpenMaps(cfg.Dir, cfg.Sizes)
	if err != nil {
		return nil, fmt.Errorf("opening maps in %s: %w", cfg.Dir, err)
	}
	if err := takeOver(cfg.Dir, held, fresh); err != nil {
		held.Close()
		return nil, err
	}
	if err := errors.Join(prepareTracking(cfg.Log), warnOfLateChecksums(cfg.Log)); err != nil {
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
	if d.carried, err = carriedOver(cfg.Dir, held, replaced, fresh); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
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

// begin is called before the first program is attached or swapped. Flows go on, and whoever runs next, should this process
// end, goes on with the maps that this program uses.
func (d *Datapath) begin() error {
	if d.begun || len(d.replaced) == 0 {
		return nil
	}
	if err := d.carry(); err != nil {
		return err
	}
	if err := d.maps.PinNext(d.dir, d.replaced); err != nil {
		return err
	}
	d.begun = true
	return nil
}

// pinMaps pins the maps, and then the programs that the CNI plugin attaches: they may only be those that use pinned maps.
func (d *Datapath) pinMaps() error {
	if err := d.maps.PinMaps(d.dir); err != nil {
		return fmt.Errorf("pinning maps in %s: %w", d.dir, err)
	}
	return firstdrop.PinPrograms(d.dir, firstdrop.Mode(d.mode), d.programs.PodIngress, d.programs.PodEgress)
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
