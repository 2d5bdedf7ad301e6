// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Outdated says whether a hook's programs judge packets by maps that are to be replaced. They go on doing so until Attach:
// whoever calls it must have filled the new maps.
func (d *Datapath) Outdated(h table.Hook) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, outdated := d.outdated[h]
	return outdated
}

// findOutdated asks the kernel which maps the attached programs use, rather than what was replaced: an upgrade that was cut
// off has swapped some of them.
func (d *Datapath) findOutdated() error {
	info, err := d.maps.Config.Info()
	if err != nil {
		return fmt.Errorf("looking at map %s: %w", bpf.MapConfig, err)
	}
	ours, _ := info.ID()
	d.outdated = map[table.Hook]struct{}{}
	for _, role := range []table.Role{table.RolePod, table.RoleTunnel, table.RoleUplink} {
		interfaces, err := d.Attached(role)
		if err != nil {
			return err
		}
		for _, ifindex := range interfaces {
			for _, s := range d.spots(role) {
				former, err := d.usesAnother(s, ifindex, ours)
				if err != nil {
					return fmt.Errorf("looking for the maps of %s on interface %d: %w", s.hook, ifindex, err)
				}
				if former {
					d.outdated[table.Hook{Role: role, Ifindex: ifindex}] = struct{}{}
				}
			}
		}
	}
	return nil
}

// usesAnother says whether a program of ours is there and uses another fl_config, which every program reads.
func (d *Datapath) usesAnother(s spot, ifindex uint32, config ebpf.MapID) (bool, error) {
	id, err := d.programAt(s, ifindex)
	if err != nil || id == 0 {
		return false, err
	}
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // just went, with its interface
	}
	if err != nil {
		return false, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false, err
	}
	used, _ := info.MapIDs()
	return !slices.Contains(used, config), nil
}

// programAt returns 0 where no program of ours is attached.
func (d *Datapath) programAt(s spot, ifindex uint32) (ebpf.ProgramID, error) {
	if d.mode == Clsact {
		id, err := firstdrop.FilterProgram(s.at(), ifindex)
		return ebpf.ProgramID(id), err
	}
	err := d.load(s.pin(ifindex))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	l := d.links[s.pin(ifindex)]
	if there, err := firstdrop.SitsOn(l, ifindex); !there || err != nil {
		return 0, err
	}
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	return info.Program, nil
}
