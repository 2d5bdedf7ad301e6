// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// socketID tells one run of the userspace process from the next.
type socketID struct {
	inode uint64
	born  int64
}

func (d *Device) socket() socketID {
	if d.impl == Kernel {
		return socketID{}
	}
	info, err := os.Stat(filepath.Join(SocketDir, d.cfg.Device+".sock"))
	if err != nil {
		return socketID{}
	}
	id := socketID{born: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode = st.Ino
	}
	return id
}

// current makes sure that what we know is about the process that runs now. A
// restarted one came up with the peers of the last Save; what was asked for
// since then is told again.
func (d *Device) current() error {
	now := d.socket()
	if now == d.served {
		return nil
	}
	if err := ensureLink(d.cfg, d.impl); err != nil {
		return err
	}
	told := d.told()
	if err := d.learn(told); err != nil {
		return err
	}
	for key := range d.have {
		if _, known := told[key]; !known {
			if err := d.remove(key); err != nil { // gone since the last Save
				return err
			}
		}
	}
	for _, p := range d.want {
		if err := d.apply(p); err != nil {
			return fmt.Errorf("telling the restarted device again: %w", err)
		}
	}
	d.served = now
	d.cfg.Log.Info("the userspace WireGuard process restarted; its peers were checked", "device", d.cfg.Device, "peers", len(d.have))
	return nil
}

// told are the endpoints that the device was given, by peer.
func (d *Device) told() map[Key]netip.AddrPort {
	out := make(map[Key]netip.AddrPort, len(d.have))
	for key, k := range d.have {
		out[key] = k.told
	}
	return out
}

// learn reads the device, gives it our key and port if it hasn't them, and
// remembers what it holds.
func (d *Device) learn(told map[Key]netip.AddrPort) error {
	dev, err := d.read()
	if err != nil {
		return err
	}
	if dev.PrivateKey != d.key || dev.ListenPort != d.cfg.ListenPort {
		cfg := wgtypes.Config{PrivateKey: &d.key, ListenPort: &d.cfg.ListenPort}
		if err := d.client.ConfigureDevice(d.cfg.Device, cfg); err != nil {
			return fmt.Errorf("giving device %s its key and port %d: %w", d.cfg.Device, d.cfg.ListenPort, d.notReady(err))
		}
	}
	d.holds(dev, told)
	return nil
}

// holds remembers what the device was read to hold. told are the endpoints that it was given: it knows where a peer was last
// heard, which may be elsewhere.
func (d *Device) holds(dev *wgtypes.Device, told map[Key]netip.AddrPort) {
	d.have = make(map[Key]*known, len(dev.Peers))
	d.owner = map[netip.Prefix]Key{}
	for _, p := range dev.Peers {
		s := status(p)
		k := &known{told: s.Endpoint, allowed: map[netip.Prefix]bool{}}
		if endpoint, ok := told[s.PublicKey]; ok {
			k.told = endpoint
		}
		for _, prefix := range s.AllowedIPs {
			k.allowed[prefix] = true
			d.owner[prefix] = s.PublicKey
		}
		d.have[s.PublicKey] = k
	}
}

// apply changes the device to hold p, with the fewest words.
//
// Taking a prefix from a peer would mean to replace its whole list, and for a
// moment none of its packets would pass. WireGuard lets a prefix belong to one
// peer only, so instead the prefix is given to a peer that nobody can be (its
// private key was thrown away), which is then removed with all it has.
func (d *Device) apply(p Peer) error {
	have := d.have[p.PublicKey]
	fresh := have == nil
	if fresh {
		have = &known{allowed: map[netip.Prefix]bool{}}
	}
	var added, removed []netip.Prefix
	wanted := make(map[netip.Prefix]bool, len(p.AllowedIPs))
	for _, prefix := range p.AllowedIPs {
		prefix = prefix.Masked()
		wanted[prefix] = true
		if d.owner[prefix] != p.PublicKey {
			added = append(added, prefix)
		}
	}
	for prefix := range have.allowed {
		if !wanted[prefix] {
			removed = append(removed, prefix)
		}
	}
	moved := have.told != p.Endpoint
	if !fresh && !moved && len(added) == 0 && len(removed) == 0 {
		return nil
	}
	var cfgs []wgtypes.PeerConfig
	if len(removed) > 0 {
		cfgs = append(cfgs,
			wgtypes.PeerConfig{PublicKey: d.bin.PublicKey(), AllowedIPs: ipNets(removed)},
			wgtypes.PeerConfig{PublicKey: d.bin.PublicKey(), Remove: true})
	}
	cfg := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.PublicKey), AllowedIPs: ipNets(added)}
	if moved && p.Endpoint.IsValid() {
		cfg.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	if fresh {
		cfg.PersistentKeepaliveInterval = &d.cfg.Keepalive
	}
	if err := d.configure(append(cfgs, cfg)...); err != nil {
		// Perhaps a part got through: what the device holds must be read again.
		d.served = socketID{inode: ^uint64(0)}
		return fmt.Errorf("setting peer %s at %s: %w", p.PublicKey, p.Endpoint, err)
	}
	d.remember(p, wanted, removed)
	return nil
}

func (d *Device) remove(key Key) error {
	if d.have[key] == nil {
		return nil
	}
	err := d.configure(wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true})
	if err != nil {
		return fmt.Errorf("removing peer %s: %w", key, err)
	}
	for prefix := range d.have[key].allowed {
		delete(d.owner, prefix)
	}
	delete(d.have, key)
	return nil
}

func (d *Device) remember(p Peer, wanted map[netip.Prefix]bool, removed []netip.Prefix) {
	for _, prefix := range removed {
		delete(d.owner, prefix)
	}
	for prefix := range wanted {
		if before, ok := d.owner[prefix]; ok && before != p.PublicKey && d.have[before] != nil {
			delete(d.have[before].allowed, prefix) // the device moved it
		}
		d.owner[prefix] = p.PublicKey
	}
	d.have[p.PublicKey] = &known{told: p.Endpoint, allowed: wanted}
}

func (d *Device) configure(peers ...wgtypes.PeerConfig) error {
	return d.notReady(d.client.ConfigureDevice(d.cfg.Device, wgtypes.Config{Peers: peers}))
}

func (d *Device) read() (*wgtypes.Device, error) {
	dev, err := d.client.Device(d.cfg.Device)
	if err != nil {
		return nil, fmt.Errorf("reading device %s: %w", d.cfg.Device, d.notReady(err))
	}
	return dev, nil
}

// notReady marks the errors of a userspace process that isn't there: no
// socket, or a socket that nobody listens on any more.
func (d *Device) notReady(err error) error {
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	if d.impl != Userspace || !gone {
		return err
	}
	return fmt.Errorf("%w: nobody serves %s (is the fairlead-tunnel pod of this node running?): %w",
		ErrNotReady, filepath.Join(SocketDir, d.cfg.Device+".sock"), err)
}

func status(p wgtypes.Peer) Status {
	s := Status{
		Peer:          Peer{PublicKey: Key(p.PublicKey)},
		LastHandshake: p.LastHandshakeTime,
		ReceivedBytes: p.ReceiveBytes,
		SentBytes:     p.TransmitBytes,
	}
	if p.Endpoint != nil {
		at := p.Endpoint.AddrPort()
		s.Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	for _, ipnet := range p.AllowedIPs {
		addr, ok := netip.AddrFromSlice(ipnet.IP)
		if !ok {
			continue
		}
		ones, _ := ipnet.Mask.Size()
		s.AllowedIPs = append(s.AllowedIPs, netip.PrefixFrom(addr.Unmap(), ones))
	}
	slices.SortFunc(s.AllowedIPs, netip.Prefix.Compare)
	return s
}

func ipNets(prefixes []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, 0, len(prefixes))
	for _, p := range prefixes {
		out = append(out, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return out
}

func sortedPrefixes(set map[netip.Prefix]bool) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(set))
	for p := range set {
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}
