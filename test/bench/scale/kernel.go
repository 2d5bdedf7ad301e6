// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// poll is the pause between two looks at a map: the resolution of latencies.
const poll = 200 * time.Microsecond

// kernel is the agent's maps, seen as the programs see them.
type kernel struct {
	dir                        string
	addresses, services, slots *ebpf.Map
}

func openKernel(dir string) (*kernel, error) {
	k := &kernel{dir: dir}
	for name, field := range map[string]**ebpf.Map{
		bpf.MapIpcache4: &k.addresses, bpf.MapServices4: &k.services, bpf.MapSlots: &k.slots,
	} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			k.close()
			return nil, fmt.Errorf("open map %s: %w", name, err)
		}
		*field = m
	}
	return k, nil
}

func (k *kernel) close() {
	for _, m := range []*ebpf.Map{k.addresses, k.services, k.slots} {
		if m != nil {
			_ = m.Close()
		}
	}
}

// identity of an address; 0 if the map doesn't know it.
func (k *kernel) identity(addr netip.Addr) (uint32, error) {
	var row bpf.Remote
	err := k.addresses.Lookup(&bpf.Addr4{Addr: addr.As4()}, &row)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", addr, err)
	}
	return row.Identity, nil
}

// awaitAddress waits until an address has an identity, and says when it was seen.
func (k *kernel) awaitAddress(addr netip.Addr, want uint32, within time.Duration) (time.Time, error) {
	for deadline := time.Now().Add(within); ; time.Sleep(poll) {
		id, err := k.identity(addr)
		now := time.Now()
		if err != nil || id == want {
			return now, err
		}
		if now.After(deadline) {
			return now, fmt.Errorf("%s doesn't get identity %d within %s", addr, want, within)
		}
	}
}

func (k *kernel) count(addrs []netip.Addr, want map[netip.Addr]uint32) (found int, err error) {
	for _, a := range addrs {
		id, err := k.identity(a)
		if err != nil {
			return found, err
		}
		if id == want[a] {
			found++
		}
	}
	return found, nil
}

// difference between what the kernel holds of pods and what it should.
type difference struct {
	Missing, Wrong, Extra int
	example               netip.Addr
}

func (d difference) equal() bool { return d.Missing+d.Wrong+d.Extra == 0 }

// String implements fmt.Stringer.
func (d difference) String() string {
	return fmt.Sprintf("%d addresses missing, %d with another identity, %d too many (such as %s)", d.Missing, d.Wrong, d.Extra, d.example)
}

func (k *kernel) compare(want map[netip.Addr]uint32) (d difference, err error) {
	have, err := k.pods()
	if err != nil {
		return d, err
	}
	for addr, id := range want {
		switch got, ok := have[addr]; {
		case !ok:
			d.Missing, d.example = d.Missing+1, addr
		case got != id:
			d.Wrong, d.example = d.Wrong+1, addr
		}
	}
	for addr := range have {
		if _, ok := want[addr]; !ok {
			d.Extra, d.example = d.Extra+1, addr
		}
	}
	return d, nil
}

// pods reads every row about an address of a pod range that isn't a node's: nodes may have bridge addresses there.
func (k *kernel) pods() (map[netip.Addr]uint32, error) {
	ranges := netip.MustParsePrefix("10.0.0.0/8")
	out := map[netip.Addr]uint32{}
	keys, values := make([]bpf.Addr4, 8192), make([]bpf.Remote, 8192)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := k.addresses.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			if a := netip.AddrFrom4(keys[i].Addr); ranges.Contains(a) && values[i].Flags&bpf.RemoteNode == 0 {
				out[a] = values[i].Identity
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", bpf.MapIpcache4, err)
		}
	}
}

// service is a service's row, and whether there is one.
func (k *kernel) service(number int) (row bpf.Service, ok bool, err error) {
	key := bpf.Service4Key{Addr: workload.ServiceAddress(number).As4(), Port: workload.ServicePort, Proto: unix.IPPROTO_TCP}
	err = k.services.Lookup(&key, &row)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("look up service %d: %w", number, err)
	}
	return row, true, nil
}

// backends are a service's slots, in order.
func (k *kernel) backends(number int) ([]bpf.Backend, error) {
	row, _, err := k.service(number)
	if err != nil {
		return nil, err
	}
	out := make([]bpf.Backend, row.Backends)
	for slot := range out {
		err := k.slots.Lookup(&bpf.SlotKey{Service: row.ID, Slot: uint32(slot)}, &out[slot])
		if err != nil {
			return nil, fmt.Errorf("look up slot %d of service %d: %w", slot, number, err)
		}
	}
	return out, nil
}

// memory is what the kernel charges for all maps of the datapath, in bytes.
func (k *kernel) memory() (total uint64, err error) {
	pins, err := os.ReadDir(k.dir)
	if err != nil {
		return 0, fmt.Errorf("list pinned maps: %w", err)
	}
	for _, pin := range pins {
		if pin.IsDir() {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(k.dir, pin.Name()), &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			continue // a program, or a map that can't be read
		}
		info, err := m.Info()
		if err == nil {
			if n, ok := info.Memlock(); ok {
				total += n
			}
		}
		_ = m.Close()
	}
	return total, nil
}
