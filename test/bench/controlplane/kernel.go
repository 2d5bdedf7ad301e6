// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
)

const pins = "/sys/fs/bpf/fairlead"

// nodeMaps are the service maps of a node.
type nodeMaps struct{ services, slots *ebpf.Map }

// openMaps opens the pinned maps from within the node's mount namespace. The
// thread that entered it is thrown away.
func openMaps(lab *instance.Lab, node string) (*nodeMaps, error) {
	where, err := lab.Where(node)
	if err != nil {
		return nil, err
	}
	m, failed := &nodeMaps{}, make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		failed <- func() error {
			ns, err := os.Open(where.MntNS)
			if err != nil {
				return fmt.Errorf("find the mount namespace of %s: %w", node, err)
			}
			defer func() { _ = ns.Close() }()
			// A thread that shares its working directory can't change its mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter the mount namespace of %s: %w", node, err)
			}
			if m.services, err = openMap(bpf.MapServices4); err != nil {
				return err
			}
			m.slots, err = openMap(bpf.MapSlots)
			return err
		}()
	}()
	return m, <-failed
}

func openMap(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(pins, name), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open map %s: %w", name, err)
	}
	return m, nil
}

func (m *nodeMaps) close() {
	_ = m.services.Close()
	_ = m.slots.Close()
}

// patience only ends a run that would never end.
const patience = 30 * time.Second

// await polls until the frontend's only backend has the address, and says when it was seen.
func (m *nodeMaps) await(ctx context.Context, frontend netip.AddrPort, address netip.Addr) (time.Time, error) {
	deadline := time.Now().Add(patience)
	for {
		leads, err := m.leadsTo(frontend, address)
		now := time.Now()
		switch {
		case err != nil:
			return now, err
		case leads:
			return now, nil
		case ctx.Err() != nil:
			return now, ctx.Err()
		case now.After(deadline):
			return now, fmt.Errorf("%s doesn't lead to %s after %s", frontend, address, patience)
		}
		time.Sleep(poll)
	}
}

// leadsTo reads the maps as the datapath does: frontend, count, slot.
func (m *nodeMaps) leadsTo(frontend netip.AddrPort, address netip.Addr) (bool, error) {
	key := bpf.Service4Key{Addr: frontend.Addr().As4(), Port: frontend.Port(), Proto: unix.IPPROTO_TCP}
	var service bpf.Service
	if err := m.services.Lookup(&key, &service); errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && service.Backends != 1 {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read frontend %s: %w", frontend, err)
	}
	var backend bpf.Backend
	slot := bpf.SlotKey{Service: service.ID}
	if err := m.slots.Lookup(&slot, &backend); errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read slot: %w", err)
	}
	return netip.AddrFrom4([4]byte(backend.Addr[:4])) == address, nil
}
