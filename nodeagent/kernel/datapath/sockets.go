// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// socketPin is the prefix of the links' names; no interface's hook has it.
const socketPin = "socket-"

// AttachSockets puts the socket programs on a cgroup, for every process below it.
func (d *Datapath) AttachSockets(cgroup string) error {
	info, err := os.Stat(cgroup)
	if err != nil {
		return fmt.Errorf("looking at cgroup %s: %w", cgroup, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return fmt.Errorf("%s is no cgroup directory", cgroup)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(); err != nil {
		return err
	}
	p := d.programs
	// What reverses comes before what translates: an answer must never arrive untranslated.
	for _, s := range []struct {
		name    string
		program *ebpf.Program
		attach  ebpf.AttachType
	}{
		{"recvmsg4", p.Recvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
		{"recvmsg6", p.Recvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
		{"getpeername4", p.Getpeername4, ebpf.AttachCgroupInet4GetPeername},
		{"getpeername6", p.Getpeername6, ebpf.AttachCgroupInet6GetPeername},
		{"sendmsg4", p.Sendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
		{"sendmsg6", p.Sendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
		{"connect4", p.Connect4, ebpf.AttachCGroupInet4Connect},
		{"connect6", p.Connect6, ebpf.AttachCGroupInet6Connect},
	} {
		if err := d.attachCgroup(socketPin+s.name, s.program, s.attach, cgroup, stat.Ino); err != nil {
			return fmt.Errorf("attaching %s to cgroup %s: %w", s.name, cgroup, err)
		}
	}
	return nil
}

func (d *Datapath) attachCgroup(name string, program *ebpf.Program, attach ebpf.AttachType, cgroup string, id uint64) error {
	swapped, err := d.swap(name, program, func(l link.Link) (bool, error) {
		info, err := l.Info()
		if err != nil {
			return false, err
		}
		at := info.Cgroup()
		return at != nil && at.CgroupId == id, nil // a cgroup's id is its directory's inode
	})
	if swapped || err != nil {
		return err
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attach, Program: program})
	if err != nil {
		return err
	}
	return d.pin(name, l)
}

// DetachSockets takes the socket programs off again.
func (d *Datapath) DetachSockets() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pins, err := os.ReadDir(d.linkDir())
	if err != nil {
		return fmt.Errorf("listing pinned links: %w", err)
	}
	var errs []error
	for _, pin := range pins {
		if strings.HasPrefix(pin.Name(), socketPin) {
			errs = append(errs, d.unpin(pin.Name()))
		}
	}
	return errors.Join(errs...)
}
