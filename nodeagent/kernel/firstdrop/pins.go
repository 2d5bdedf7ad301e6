// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package firstdrop closes a pod's interface before its first packet.
//
// The agent learns of a pod after the pod has started: its address is in the API only then. So the CNI plugin attaches the
// agent's own programs to the host side of the pod's interface before ADD returns. They find no row about the interface,
// and drop what comes from it and goes to it, with a reason and a counter (NO_ENDPOINT). When the agent has written the
// row, the same programs judge by policy; nothing is attached anew and there is no moment between the two.
//
// Agent and plugin meet in the BPF file system alone, so a plugin works while no agent runs:
//
//	<dir>/programs/<mode>/<hook>   the programs, pinned by the agent (PinPrograms)
//	<dir>/links/<hook>-<ifindex>   a program on an interface, pinned by whoever attached it (TCX)
//
// A clsact filter needs no pin: it stays on its device.
//
// The package is part of a program that starts for every pod. Of package bpf it uses names and layouts alone: what parses the
// programs there would make that program large and slow.
package firstdrop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Hook is a place on an interface where a program of ours sits.
type Hook struct {
	Name    string
	Ingress bool // of the interface, as the host sees it
}

// The hooks of a pod. To a pod first: what comes in is decided before what it may answer.
var (
	PodIngress = Hook{Name: "pod-ingress"}
	PodEgress  = Hook{Name: "pod-egress", Ingress: true}

	podHooks = []Hook{PodIngress, PodEgress}
)

// Link is the name of the pin of a hook's TCX link.
func (h Hook) Link(ifindex uint32) string {
	return h.Name + "-" + strconv.FormatUint(uint64(ifindex), 10)
}

// Ifindex is the inverse of Link.
func (h Hook) Ifindex(pin string) (uint32, bool) {
	n, ok := strings.CutPrefix(pin, h.Name+"-")
	if !ok {
		return 0, false
	}
	ifindex, err := strconv.ParseUint(n, 10, 32)
	return uint32(ifindex), err == nil
}

// Mode is how programs sit on interfaces.
type Mode string

// The modes.
const (
	TCX    Mode = "tcx"
	Clsact Mode = "clsact"
)

// LinkDir holds the pins of links.
func LinkDir(dir string) string { return filepath.Join(dir, "links") }

func programDir(dir string) string { return filepath.Join(dir, "programs") }

// PinPrograms pins the programs of a pod's hooks for the plugin, each at once in place of the one before, and with them how
// they are to be attached: those of another mode go.
func PinPrograms(dir string, mode Mode, ingress, egress *ebpf.Program) error {
	to := filepath.Join(programDir(dir), string(mode))
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("making the directory of the programs: %w", err)
	}
	for i, p := range []*ebpf.Program{ingress, egress} {
		if err := pinProgram(p, filepath.Join(to, podHooks[i].Name)); err != nil {
			return fmt.Errorf("pinning program %s in %s: %w", podHooks[i].Name, to, err)
		}
	}
	for _, other := range []Mode{TCX, Clsact} {
		if other == mode {
			continue
		}
		if err := os.RemoveAll(filepath.Join(programDir(dir), string(other))); err != nil {
			return fmt.Errorf("removing programs of mode %s: %w", other, err)
		}
	}
	return nil
}

func pinProgram(p *ebpf.Program, path string) error {
	next := path + "_new" // a BPF file system allows no dots
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A program that is pinned elsewhere already would be moved, so it is a copy that is pinned.
	twin, err := p.Clone()
	if err != nil {
		return err
	}
	defer twin.Close()
	if err := twin.Pin(next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// RemovePrograms takes the programs away: no plugin attaches anything any more.
func RemovePrograms(dir string) error {
	if err := os.RemoveAll(programDir(dir)); err != nil {
		return fmt.Errorf("removing pinned programs: %w", err)
	}
	return nil
}

// ErrNoPrograms says that the agent has pinned no programs on this node.
var ErrNoPrograms = errors.New("the node agent has not set up its programs on this node yet")

// open finds how programs are attached here and opens one for each of a pod's hooks.
func open(dir string) (Mode, []*ebpf.Program, error) {
	for _, mode := range []Mode{TCX, Clsact} {
		programs, err := openMode(filepath.Join(programDir(dir), string(mode)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return mode, programs, err
	}
	return "", nil, fmt.Errorf("%w (looked in %s)", ErrNoPrograms, programDir(dir))
}

func openMode(dir string) ([]*ebpf.Program, error) {
	var out []*ebpf.Program
	for _, h := range podHooks {
		p, err := ebpf.LoadPinnedProgram(filepath.Join(dir, h.Name), nil)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("opening program %s: %w", h.Name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func closeAll(programs []*ebpf.Program) {
	for _, p := range programs {
		_ = p.Close() // what is pinned or attached lives on
	}
}

// Ready says whether an interface could be closed now.
func Ready(dir string) error {
	_, programs, err := open(dir)
	closeAll(programs)
	return err
}

// SitsOn tells whether a TCX link is still on the interface: a deleted device leaves a link to nowhere.
func SitsOn(l link.Link, ifindex uint32) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	tcx := info.TCX()
	return tcx != nil && tcx.Ifindex == ifindex, nil
}
