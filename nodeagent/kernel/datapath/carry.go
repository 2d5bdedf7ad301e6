// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

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
		bpf.MapCT4:     {new: m.CT4, copy: copyRows[bpf.CT4Key, bpf.CTEntry]},
		bpf.MapCT6:     {new: m.CT6, copy: copyRows[bpf.CT6Key, bpf.CTEntry]},
		bpf.MapSockRev: {new: m.SockRev, copy: copyRows[bpf.SockRevKey, bpf.SockRev]},
	}
}

// carriedOver opens the old maps of those that are replaced: the one that the newest programs use, and the one that others
// may still use if an earlier replacement was cut off. One of another layout can't be read and is left behind.
func carriedOver(dir string, m *bpf.Maps, replaced, fresh []string) ([]carried, error) {
	var out []carried
	all := carriers(m)
	for _, name := range replaced {
		c, ok := all[name]
		if !ok {
			continue
		}
		from := []func(string, string) (*ebpf.Map, error){bpf.OpenFormer}
		if slices.Contains(fresh, name) {
			from = []func(string, string) (*ebpf.Map, error){bpf.OpenPinned, bpf.OpenFormer}
		}
		for _, open := range from {
			old, err := open(dir, name)
			if errors.Is(err, ebpf.ErrMapIncompatible) || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return out, fmt.Errorf("opening map %s to carry it over: %w", name, err)
			}
			c.name, c.old = name, old
			out = append(out, c)
		}
	}
	return out, nil
}

// takeOver gives new maps of the agent what the ones before them hold, if all of their set can be read: then numbers keep
// their meaning, as over a restart. Else all of the set are empty, and the policy epoch is one that no flow bears, with all
// flows to be judged in full: they remember numbers of the old maps.
func takeOver(dir string, m *bpf.Maps, fresh []string) error {
	done := map[string]bool{}
	for _, name := range fresh {
		set := bpf.SetOf(name)
		if len(set) == 1 || done[set[0]] {
			continue
		}
		done[set[0]] = true
		read, err := copySet(dir, m, set)
		if err != nil {
			return err
		}
		if !read && slices.Contains(set, bpf.MapConfig) {
			epoch, err := bpf.PinnedEpoch(dir)
			if err != nil {
				return fmt.Errorf("going on from the policy epoch of the map that is replaced: %w", err)
			}
			epoch += 2
			if err := m.Config.Put(uint32(0), &bpf.Config{PolicyEpoch: epoch, FullEpoch: epoch}); err != nil {
				return fmt.Errorf("writing map %s: %w", bpf.MapConfig, err)
			}
		}
	}
	return nil
}

// copySet reports false, and has copied nothing, if a map of the set can't be read.
func copySet(dir string, m *bpf.Maps, set []string) (bool, error) {
	former := map[string]*ebpf.Map{}
	defer func() {
		for _, old := range former {
			old.Close()
		}
	}()
	for _, name := range set {
		old, err := bpf.OpenPinned(dir, name)
		if errors.Is(err, ebpf.ErrMapIncompatible) || errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("opening map %s to copy it: %w", name, err)
		}
		former[name] = old
	}
	all := m.ByName()
	for name, old := range former {
		if err := copyBytes(old, all[name]); err != nil {
			return false, fmt.Errorf("copying map %s: %w", name, err)
		}
	}
	return true, nil
}

// copyBytes copies rows whatever they are. A map that is smaller takes what it has room for, and the agent sees what is
// missing as over any restart.
func copyBytes(from, to *ebpf.Map) error {
	var key, value []byte
	rows := from.Iterate()
	for rows.Next(&key, &value) {
		if err := to.Put(key, value); errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
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
