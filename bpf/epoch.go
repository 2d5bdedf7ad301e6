// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/cilium/ebpf"
)

// AddressEpochIndex is the index in fl_address_epochs of the epoch of a peer's address: raise it after the row of that
// address in fl_ipcache4/6 changed or went. Several addresses share an index; that costs their flows a judgement, no more.
// It is address_epoch_index() of lib/epoch.h. An IPv4-mapped IPv6 address counts as IPv4.
func AddressEpochIndex(a netip.Addr) uint32 {
	var b [16]byte
	copy(b[:], a.Unmap().AsSlice())
	mixed := binary.LittleEndian.Uint64(b[:8])*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(b[8:])*0xc2b2ae3d27d4eb4f
	return uint32(mixed>>52) & (AddressEpochs - 1)
}

// PinnedEpoch is the policy epoch of the fl_config pinned in dir, of this or any earlier layout; 0 if none is pinned. When
// OpenMaps had to replace fl_config, the agent goes on from here: flows that outlive the upgrade bear epochs of the old
// map, and an epoch that started anew would let them pass for judged.
func PinnedEpoch(dir string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(pinOf(dir, MapConfig), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open pinned map %s: %w", MapConfig, err)
	}
	defer m.Close()
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return 0, fmt.Errorf("read pinned map %s: %w", MapConfig, err)
	}
	if len(value) < 4 {
		return 0, fmt.Errorf("read pinned map %s: value of %d bytes holds no epoch", MapConfig, len(value))
	}
	return binary.LittleEndian.Uint32(value), nil
}
