// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// spot is one program of a role.
type spot struct {
	hook    bpf.Hook
	ingress bool // of the interface, as the host sees it
	program *ebpf.Program
}

// at is the spot's place on an interface.
func (s spot) at() firstdrop.Hook { return firstdrop.Hook{Name: s.hook.String(), Ingress: s.ingress} }

func (s spot) pin(ifindex uint32) string { return s.at().Link(ifindex) }

// spots of a role, in the order they are attached. To a pod first: what comes in is decided before what it may answer.
func (d *Datapath) spots(role table.Role) []spot {
	switch role {
	case table.RolePod:
		return []spot{
			{bpf.HookPodIngress, false, d.programs.PodIngress},
			{bpf.HookPodEgress, true, d.programs.PodEgress},
		}
	case table.RoleTunnel:
		return []spot{{bpf.HookTunnelIngress, true, d.programs.TunnelIngress}}
	case table.RoleUplink:
		return []spot{{bpf.HookUplinkEgress, false, d.programs.UplinkEgress}}
	}
	return nil
}

// Attach puts a role's programs on an interface, or swaps them where older ones sit.
//
// During an upgrade some interfaces have new programs and maps already and others old ones. Nothing opens by that: the
// maps that the new programs read were filled before, and each packet is judged at its pod's own hooks. But a flow that
// one hook of a pod opened must be known to the other, so the hooks of one interface are swapped back to back, and what
// the old flow table holds is copied before.
func (d *Datapath) Attach(role table.Role, ifindex uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(); err != nil {
		return err
	}
	if d.mode != Clsact {
		for _, s := range d.spots(role) {
			if err := d.load(s.pin(ifindex)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	for _, s := range d.spots(role) {
		var err error
		if d.mode == Clsact {
			err = firstdrop.SetFilter(s.at(), s.program, ifindex)
		} else {
			err = d.attachLink(s, ifindex)
		}
		if err != nil {
			return fmt.Errorf("attaching %s to interface %d: %w", s.hook, ifindex, err)
		}
	}
	delete(d.outdated, table.Hook{Role: role, Ifindex: ifindex})
	return nil
}

// Detach takes a role's programs off an interface, which may be gone already.
func (d *Datapath) Detach(role table.Role, ifindex uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, s := range d.spots(role) {
		if d.mode == Clsact {
			errs = append(errs, firstdrop.RemoveFilter(s.at(), ifindex))
		} else {
			errs = append(errs, d.unpin(s.pin(ifindex)))
		}
	}
	delete(d.outdated, table.Hook{Role: role, Ifindex: ifindex})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detaching from %s interface %d: %w", role, ifindex, err)
	}
	return nil
}

// Attached lists the interfaces that bear a role's programs, from this run or an earlier one.
func (d *Datapath) Attached(role table.Role) ([]uint32, error) {
	if d.mode == Clsact {
		found, err := filtered(d.spots(role))
		return sortedKeys(found), err
	}
	pins, err := os.ReadDir(d.linkDir())
	if err != nil {
		return nil, fmt.Errorf("listing pinned links: %w", err)
	}
	found := map[uint32]bool{}
	for _, s := range d.spots(role) {
		for _, pin := range pins {
			if ifindex, ok := s.at().Ifindex(pin.Name()); ok {
				found[ifindex] = true
			}
		}
	}
	return sortedKeys(found), nil
}

func (d *Datapath) linkDir() string { return firstdrop.LinkDir(d.dir) }

// attachLink swaps the program of a pinned link, or makes and pins a new one. The CNI plugin may be making one at the same
// time: that one is then the link whose program is swapped.
func (d *Datapath) attachLink(s spot, ifindex uint32) error {
	name := s.pin(ifindex)
	for n := 0; ; n++ {
		swapped, err := d.swap(name, s.program, func(l link.Link) (bool, error) { return firstdrop.SitsOn(l, ifindex) })
		if swapped || err != nil {
			return err
		}
		l, err := link.AttachTCX(firstdrop.Options(s.at(), s.program, ifindex))
		if err == nil {
			err = d.pin(name, l)
		}
		if !errors.Is(err, os.ErrExist) || n == firstdrop.Attempts {
			return err
		}
		time.Sleep(firstdrop.Pause)
	}
}

// swap gives a pinned link another program. It reports false if there is no such link, or a stale one (whose device or
// cgroup is gone, judged by valid), which it then removes.
func (d *Datapath) swap(name string, program *ebpf.Program, valid func(link.Link) (bool, error)) (bool, error) {
	err := d.load(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l := d.links[name]
	ok, err := valid(l)
	if err != nil {
		return false, fmt.Errorf("looking at pinned link %s: %w", name, err)
	}
	if !ok {
		return false, d.unpin(name)
	}
	if d.own[name] {
		return true, nil // attached by this very run
	}
	if err := l.Update(program); err != nil {
		return false, fmt.Errorf("swapping the program of link %s: %w", name, err)
	}
	d.own[name] = true
	return true, nil
}

// load opens a pinned link, unless it is open already.
func (d *Datapath) load(name string) error {
	if _, held := d.links[name]; held {
		return nil
	}
	l, err := link.LoadPinnedLink(filepath.Join(d.linkDir(), name), nil)
	if err != nil {
		return fmt.Errorf("opening pinned link %s: %w", name, err)
	}
	d.links[name] = l
	return nil
}

func (d *Datapath) pin(name string, l link.Link) error {
	if err := l.Pin(filepath.Join(d.linkDir(), name)); err != nil {
		return errors.Join(fmt.Errorf("pinning link %s: %w", name, err), l.Close())
	}
	d.links[name], d.own[name] = l, true
	return nil
}

// unpin removes a link; closing its last handle detaches it.
func (d *Datapath) unpin(name string) error {
	if err := os.Remove(filepath.Join(d.linkDir(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing pinned link %s: %w", name, err)
	}
	l, held := d.links[name]
	if !held {
		return nil
	}
	delete(d.links, name)
	delete(d.own, name)
	return l.Close()
}

func filtered(spots []spot) (map[uint32]bool, error) {
	var at []firstdrop.Hook
	for _, s := range spots {
		at = append(at, s.at())
	}
	return firstdrop.Filtered(at...)
}

func sortedKeys(set map[uint32]bool) []uint32 {
	var out []uint32
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
