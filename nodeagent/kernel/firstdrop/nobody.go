// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package firstdrop

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Pod is what the plugin knows of a pod: its addresses, and not who it is.
type Pod struct {
	Addresses    []netip.Addr
	MAC, HostMAC net.HardwareAddr
}

// LetNeighbours writes which addresses are behind a closed interface, with the identity 0, of which no policy speaks. Then
// the pod may ask for its neighbours' MAC addresses and answer such questions, within its own addresses. What passes beside
// that is what passes under every policy: the node's own traffic. Everything else is dropped, as "no-policy".
//
// A row that the agent wrote stays, and the agent replaces this one. Where the map has another layout than this plugin, for
// a moment during an upgrade, there is no row, and the interface is simply closed.
func LetNeighbours(dir string, ifindex uint32, p Pod) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.MapIfaces), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening map %s: %w", bpf.MapIfaces, err)
	}
	defer m.Close()
	row := bpf.Iface{Identity: bpf.IdentityUnknown}
	if m.Type() != ebpf.Hash || m.KeySize() != 4 || m.ValueSize() != uint32(unsafe.Sizeof(row)) {
		return nil
	}
	for _, a := range p.Addresses {
		if a.Is4() {
			row.Flags, row.IP4 = row.Flags|bpf.IfaceIP4, a.As4()
		} else {
			row.Flags, row.IP6 = row.Flags|bpf.IfaceIP6, a.As16()
		}
	}
	copy(row.PodMAC[:], p.MAC)
	copy(row.HostMAC[:], p.HostMAC)
	if err := m.Update(ifindex, row, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("writing interface %d to map %s: %w", ifindex, bpf.MapIfaces, err)
	}
	return nil
}
