// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// carried is a map that packets fill and that is replaced by one of another size: what it holds goes over to the new one,
// so that running flows, and sockets that talk to a service, go on as they were. The agent's own maps are filled from its
// tables instead.
type carried struct {
	name     string
	old, new *ebpf.Map
	copy     func(name string, from, to *ebpf.Map) error
}

// carriers are the maps whose content matters after a change of size. Caches of a second (fl_denied, fl_frags,
// fl_event_seen) and counters begin anew.
func carriers(m *bpf.Maps) map[string]carried {
	return map[string]carried{
		bpf.MapCT4:      {new: m.CT4, copy: copyRows[bpf.CT4Key, bpf.CTEntry]},
		bpf.MapCT6:      {new: m.CT6, copy: copyRows[bpf.CT6Key, bpf.CTEntry]},
		bpf.MapSockRev:  {new: m.SockRev, copy: copyRows[bpf.SockRevKey, bpf.SockRev]},
		bpf.MapAffinity: {new: m.Affinity, copy: copyRows[bpf.AffinityKey, bpf.Affinity]},
	}
}

// carriedOver opens the old maps of those that are replaced. One of another layout can't be read and is left behind.
func carriedOver(dir string, m *bpf.Maps, replaced []string) ([]carried, error) {
	var out []carried
	all := carriers(m)
	for _, name := range replaced {
		c, ok := all[name]
		if !ok {
			continue
		}
		old, err := bpf.OpenPinned(dir, name)
		if errors.Is(err, ebpf.ErrMapIncompatible) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("opening map %s to carry it over: %w", name, err)
		}
		c.name, c.old = name, old
		out = append(out, c)
	}
	return out, nil
}

// carry copies what the new maps don't have yet. It is called before the first program is swapped, for the flows that
// are there, and after the last one, for those that began meanwhile.
func (d *Datapath) carry() error {
	var errs []error
	for _, c := range d.carried {
		errs = append(errs, c.copy(c.name, c.old, c.new))
	}
	return errors.Join(errs...)
}

func (d *Datapath) dropCarried() {
	for _, c := range d.carried {
		if err := c.old.Close(); err != nil {
			d.log.Debug("closing a map that was carried over", "map", c.name, "error", err)
		}
	}
	d.carried = nil
}

// copyRows never overwrites: what the new programs wrote is newer. The new map may be smaller; an LRU then keeps what it
// can.
func copyRows[K, V comparable](name string, from, to *ebpf.Map) error {
	var failed error
	err := Map[K, V]{name, from}.Have(context.Background(), func(keys []K, values []V) {
		for at := 0; at < len(keys); at++ {
			n, err := to.BatchUpdate(keys[at:], values[at:], &ebpf.BatchOptions{ElemFlags: uint64(ebpf.UpdateNoExist)})
			if err == nil {
				return
			}
			if n >= len(keys)-at {
				n = 0 // refused as a whole
			}
			at += n
			if err := to.Update(&keys[at], &values[at], ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
				failed = fmt.Errorf("copying into map %s: %w", name, err)
			}
		}
	})
	return errors.Join(err, failed)
}
