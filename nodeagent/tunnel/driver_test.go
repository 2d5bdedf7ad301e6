// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/tunnel"
)

// alone is a node without others: its driver is tested against a real device.
func alone(t *testing.T) *node {
	t.Helper()
	n := &node{ns: nstest.New(t)}
	n.cfg = tunnel.Config{Device: deviceName(), StateDir: filepath.Join(t.TempDir(), "wireguard"), ListenPort: port, MTU: 1420}
	n.proc = launch(t, n.ns, n.cfg)
	return n
}

func newKey(t *testing.T) wireguard.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return wireguard.Key(k.PublicKey())
}

func peer(key wireguard.Key, at netip.AddrPort, prefixes ...string) wireguard.Peer {
	p := wireguard.Peer{PublicKey: key, Endpoint: at}
	for _, s := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(s))
	}
	return p
}

// wantPeers compares the device with what is expected, handshakes aside.
func wantPeers(d *wireguard.Device, want ...wireguard.Peer) error {
	got, err := d.Peers()
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("the device has %d peers, want %d: %+v", len(got), len(want), got)
	}
	for _, w := range want {
		i := slices.IndexFunc(got, func(s wireguard.Status) bool { return s.PublicKey == w.PublicKey })
		if i < 0 {
			return fmt.Errorf("the device lacks the peer %s", w.PublicKey)
		}
		if got[i].Endpoint != w.Endpoint || !slices.Equal(got[i].AllowedIPs, w.AllowedIPs) {
			return fmt.Errorf("the device has %+v, want %+v", got[i].Peer, w)
		}
	}
	return nil
}

func TestPeersComeAndChangeAndGo(t *testing.T) {
	n := alone(t)
	at := netip.MustParseAddrPort("192.0.2.7:51871")
	at6 := netip.MustParseAddrPort("[2001:db8::7]:51871")
	x, y := newKey(t), newKey(t)
	n.withDriver(t, func(d *wireguard.Device) error {
		steps := []struct {
			do   wireguard.Peer
			want []wireguard.Peer
		}{
			{peer(x, at, "10.1.0.1/32", "10.1.0.2/32", "fd00::1/128"),
				[]wireguard.Peer{peer(x, at, "10.1.0.1/32", "10.1.0.2/32", "fd00::1/128")}},
			{peer(x, at, "10.1.0.2/32", "10.1.0.3/32"),
				[]wireguard.Peer{peer(x, at, "10.1.0.2/32", "10.1.0.3/32")}},
			{peer(y, at6, "10.1.0.3/32"), // moves from x
				[]wireguard.Peer{peer(x, at, "10.1.0.2/32"), peer(y, at6, "10.1.0.3/32")}},
			{peer(x, at, "10.1.0.2/32"), // must not touch what y has now
				[]wireguard.Peer{peer(x, at, "10.1.0.2/32"), peer(y, at6, "10.1.0.3/32")}},
			{peer(y, at6),
				[]wireguard.Peer{peer(x, at, "10.1.0.2/32"), peer(y, at6)}},
		}
		for i, s := range steps {
			if err := errors.Join(d.SetPeer(s.do), wantPeers(d, s.want...)); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		return errors.Join(d.RemovePeer(x), d.RemovePeer(x), wantPeers(d, peer(y, at6)))
	})
}

func TestRoamedEndpointIsRespected(t *testing.T) {
	n := alone(t)
	ours := netip.MustParseAddrPort("192.0.2.7:51871")
	roamed := netip.MustParseAddrPort("198.51.100.9:4500")
	moved := netip.MustParseAddrPort("192.0.2.8:51871")
	x := newKey(t)
	roam := func() error {
		c, err := wgctrl.New()
		if err != nil {
			return err
		}
		return errors.Join(c.ConfigureDevice(n.cfg.Device, wgtypes.Config{Peers: []wgtypes.PeerConfig{{
			PublicKey: wgtypes.Key(x), UpdateOnly: true, Endpoint: net.UDPAddrFromAddrPort(roamed),
		}}}), c.Close())
	}
	n.withDriver(t, func(d *wireguard.Device) error {
		return errors.Join(d.SetPeer(peer(x, ours, "10.1.0.1/32")), d.Save(), roam(),
			d.SetPeer(peer(x, ours, "10.1.0.1/32", "10.1.0.2/32")),
			wantPeers(d, peer(x, roamed, "10.1.0.1/32", "10.1.0.2/32")), d.Save())
	})
	// An agent that restarted knows from the disk what it had set.
	n.withDriver(t, func(d *wireguard.Device) error {
		return errors.Join(d.SetPeer(peer(x, ours, "10.1.0.1/32")),
			wantPeers(d, peer(x, roamed, "10.1.0.1/32")),
			d.SetPeer(peer(x, moved, "10.1.0.1/32")),
			wantPeers(d, peer(x, moved, "10.1.0.1/32")))
	})
}

// Somebody with another tool takes a peer, or one of its addresses, from the device: after a look at it they are set anew.
func TestWhatStrangersTookIsSetAnew(t *testing.T) {
	n := alone(t)
	at := netip.MustParseAddrPort("192.0.2.7:51871")
	x := peer(newKey(t), at, "10.1.0.1/32", "10.1.0.2/32")
	change := func(p wgtypes.PeerConfig) error {
		c, err := wgctrl.New()
		if err != nil {
			return err
		}
		p.PublicKey = wgtypes.Key(x.PublicKey)
		return errors.Join(c.ConfigureDevice(n.cfg.Device, wgtypes.Config{Peers: []wgtypes.PeerConfig{p}}), c.Close())
	}
	n.withDriver(t, func(d *wireguard.Device) error {
		if err := d.SetPeer(x); err != nil {
			return err
		}
		for _, damage := range []wgtypes.PeerConfig{{Remove: true}, {ReplaceAllowedIPs: true}} {
			if err := change(damage); err != nil {
				return err
			}
			if _, err := d.Peers(); err != nil {
				return err
			}
			if err := errors.Join(d.SetPeer(x), wantPeers(d, x)); err != nil {
				return err
			}
		}
		return nil
	})
}

// The process restarts behind an open driver: what was set since the last Save
// and what was removed since must be told again.
func TestDriverConfiguresRestartedProcess(t *testing.T) {
	userspaceOnly(t)
	n := alone(t)
	at := netip.MustParseAddrPort("192.0.2.7:51871")
	saved, unsaved, gone := newKey(t), newKey(t), newKey(t)
	n.withDriver(t, func(d *wireguard.Device) error {
		err := errors.Join(d.SetPeer(peer(saved, at, "10.1.0.1/32", "10.1.0.9/32")),
			d.SetPeer(peer(gone, at, "10.1.0.7/32")), d.Save(), d.RemovePeer(gone),
			d.SetPeer(peer(saved, at, "10.1.0.1/32")),
			d.SetPeer(peer(unsaved, at, "10.1.0.2/32")))
		if err != nil {
			return err
		}
		n.proc.kill()
		if _, err := d.Peers(); !errors.Is(err, wireguard.ErrNotReady) {
			return fmt.Errorf("reading without the process: got %v, want ErrNotReady", err)
		}
		n.proc = launch(t, n.ns, n.cfg)
		return wantPeers(d,
			peer(saved, at, "10.1.0.1/32"), peer(unsaved, at, "10.1.0.2/32"))
	})
}

func TestDeviceIsShaped(t *testing.T) {
	n := alone(t)
	cfg := n.driverConfig()
	cfg.MTU = wireguard.MTU(1400)
	n.ns.Do(t, func() error {
		d, err := wireguard.Open(cfg)
		if err != nil {
			return err
		}
		defer d.Close()
		index, mtu, err := d.Device()
		if err != nil {
			return err
		}
		ifi, err := net.InterfaceByName(cfg.Device)
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		if mtu != 1320 || index != ifi.Index || ifi.Flags&net.FlagUp == 0 || len(addrs) != 0 || d.ListenPort() != port {
			return fmt.Errorf("device %d, MTU %d, flags %s, addresses %v, port %d, %s", index, mtu, ifi.Flags, addrs, d.ListenPort(), d.Implementation())
		}
		return errors.Join(err, d.Save())
	})
	n.proc.kill() // the MTU was saved: the restarted process doesn't go back to its flag's
	n.proc = launch(t, n.ns, n.cfg)
	n.ns.Do(t, func() error {
		ifi, err := net.InterfaceByName(cfg.Device)
		if err == nil && ifi.MTU != 1320 {
			err = fmt.Errorf("MTU %d after the restart, want 1320", ifi.MTU)
		}
		return err
	})
}
