// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/tunnel"
)

const (
	port   = 51871
	secret = "nobody on the way shall read this"
)

// node is one end: a namespace with an underlay address, a tunnel process and
// a pod address on its tunnel device.
type node struct {
	ns       *nstest.NS
	cfg      tunnel.Config
	proc     *process
	underlay netip.Addr
	pods     netip.Prefix
	key      wireguard.Key
}

func (n *node) address() netip.Addr { return n.pods.Addr().Next() }

func (n *node) driverConfig() wireguard.Config {
	return wireguard.Config{Device: n.cfg.Device, StateDir: n.cfg.StateDir, ListenPort: port, MTU: 1420}
}

// withDriver runs f as the agent would: a driver open, in the node's namespace.
func (n *node) withDriver(t *testing.T, f func(*wireguard.Device) error) {
	t.Helper()
	n.ns.Do(t, func() error {
		d, err := wireguard.Open(n.driverConfig())
		if err != nil {
			return err
		}
		return errors.Join(f(d), d.Close())
	})
}

func twoNodes(t *testing.T) (a, b *node) {
	t.Helper()
	a = &node{ns: nstest.New(t), underlay: netip.MustParseAddr("192.0.2.1"), pods: netip.MustParsePrefix("10.1.0.0/24")}
	b = &node{ns: nstest.New(t), underlay: netip.MustParseAddr("192.0.2.2"), pods: netip.MustParsePrefix("10.2.0.0/24")}
	nstest.Veth(t, a.ns, "under0", []string{"192.0.2.1/24"}, b.ns, "under0", []string{"192.0.2.2/24"})
	for _, n := range []*node{a, b} {
		n.cfg = tunnel.Config{Device: deviceName(), StateDir: filepath.Join(t.TempDir(), "wireguard"), ListenPort: port, MTU: 1420}
		n.proc = launch(t, n.ns, n.cfg)
		n.withDriver(t, func(d *wireguard.Device) error {
			n.key = d.PublicKey()
			return nstest.Up(n.cfg.Device, n.address().String()+"/32")
		})
	}
	introduce(t, a, b)
	introduce(t, b, a)
	return a, b
}

// introduce makes peer known to n, as an agent does.
func introduce(t *testing.T, n, peer *node) {
	t.Helper()
	n.withDriver(t, func(d *wireguard.Device) error {
		p := wireguard.Peer{PublicKey: peer.key, Endpoint: netip.AddrPortFrom(peer.underlay, port), AllowedIPs: []netip.Prefix{peer.pods}}
		return errors.Join(d.SetPeer(p), d.Save(), nstest.Route(peer.pods.String(), n.cfg.Device, ""))
	})
}

// connect opens a TCP connection from a to an echo server on b.
func connect(t *testing.T, a, b *node) net.Conn {
	t.Helper()
	var listener net.Listener
	b.ns.Do(t, func() (err error) {
		listener, err = net.Listen("tcp", b.address().String()+":7")
		return err
	})
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
		}
	}()
	var c net.Conn
	a.ns.Do(t, func() (err error) {
		c, err = net.Dial("tcp", b.address().String()+":7")
		return err
	})
	t.Cleanup(func() { c.Close(); listener.Close() })
	return c
}

// echo sends a lot and wants it back.
func echo(t *testing.T, c net.Conn, size int) {
	t.Helper()
	sent := bytes.Repeat([]byte(secret), size/len(secret))
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("reading the echo: %v", err)
	}
	if !bytes.Equal(sent, got) {
		t.Fatal("the echo differs from what was sent")
	}
}

func TestOnlyDatagramsOfTheTunnelCrossTheUnderlay(t *testing.T) {
	a, b := twoNodes(t)
	capture := startCapture(t, a.ns, "under0")
	echo(t, connect(t, a, b), 1<<20)
	capture.onlyTunnel(t, port, []byte(secret))
	a.withDriver(t, func(d *wireguard.Device) error {
		peers, err := d.Peers()
		if err != nil {
			return err
		}
		if len(peers) != 1 || peers[0].LastHandshake.IsZero() || peers[0].SentBytes < 1<<20 || peers[0].ReceivedBytes < 1<<20 {
			return fmt.Errorf("the peer's counters don't show the traffic: %+v", peers)
		}
		return nil
	})
}

// The agents are gone (no driver is open) when one tunnel process is killed.
func TestConnectionSurvivesKilledProcess(t *testing.T) {
	userspaceOnly(t)
	a, b := twoNodes(t)
	c := connect(t, a, b)
	echo(t, c, 1<<20)
	before := index(t, a)
	capture := startCapture(t, a.ns, "under0")
	for _, victim := range []*node{a, b, a} {
		victim.proc.kill()
		victim.proc = launch(t, victim.ns, victim.cfg)
		echo(t, c, 1<<20)
	}
	if after := index(t, a); after != before {
		t.Errorf("the device is another one now: index %d, was %d", after, before)
	}
	capture.onlyTunnel(t, port, []byte(secret))
}

// While no process serves the device, packets for it go nowhere.
func TestNothingLeavesWithoutProcess(t *testing.T) {
	userspaceOnly(t)
	a, b := twoNodes(t)
	c := connect(t, a, b)
	echo(t, c, 1000)
	a.proc.kill()
	capture := startCapture(t, a.ns, "under0")
	go func() { _, _ = c.Write([]byte(secret)) }()
	a.proc = launch(t, a.ns, a.cfg)
	if _, err := io.ReadFull(c, make([]byte, len(secret))); err != nil {
		t.Fatal(err)
	}
	capture.onlyTunnel(t, port, []byte(secret))
}

func TestCleanExitLeavesDevice(t *testing.T) {
	userspaceOnly(t)
	a, _ := twoNodes(t)
	before := index(t, a)
	if err := a.proc.terminate(); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
	if after := index(t, a); after != before {
		t.Errorf("the device has index %d, had %d", after, before)
	}
	a.ns.Do(t, func() error {
		_, err := wireguard.Open(a.driverConfig())
		if !errors.Is(err, wireguard.ErrNotReady) {
			return fmt.Errorf("opening the driver without the process: got %v, want ErrNotReady", err)
		}
		return nil
	})
}

func TestDamagedPeersFileKeepsKey(t *testing.T) {
	userspaceOnly(t)
	a, b := twoNodes(t)
	a.proc.kill()
	if err := os.WriteFile(filepath.Join(a.cfg.StateDir, "peers.json"), []byte(`{"version":1,"peers":[{"publ`), 0o600); err != nil {
		t.Fatal(err)
	}
	a.proc = start(t, a.ns, a.cfg)
	a.proc.waitFor(t, "peers.json")
	a.proc.waitFor(t, "serving the tunnel")
	a.withDriver(t, func(d *wireguard.Device) error {
		if d.PublicKey() != a.key {
			return fmt.Errorf("the key changed from %s to %s", a.key, d.PublicKey())
		}
		peers, err := d.Peers()
		if err == nil && len(peers) > 0 {
			err = fmt.Errorf("there are peers from a damaged file: %v", peers)
		}
		return err
	})
	introduce(t, a, b)
	echo(t, connect(t, a, b), 1000)
}

func TestDamagedKeyIsNotReplaced(t *testing.T) {
	userspaceOnly(t)
	a, _ := twoNodes(t)
	a.proc.kill()
	path := filepath.Join(a.cfg.StateDir, "private.key")
	if err := os.WriteFile(path, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, a.ns, a.cfg).waitFor(t, "holds no WireGuard key; remove it to get a new one")
	if text, err := os.ReadFile(path); err != nil || string(text) != "rubbish\n" {
		t.Errorf("the key's file was changed to %q, %v", text, err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	userspaceOnly(t)
	a, b := twoNodes(t)
	start(t, a.ns, a.cfg).waitFor(t, "is served by another process")
	echo(t, connect(t, a, b), 1000)
}

func index(t *testing.T, n *node) (index int) {
	t.Helper()
	n.ns.Do(t, func() error {
		ifi, err := net.InterfaceByName(n.cfg.Device)
		if err == nil {
			index = ifi.Index
		}
		return err
	})
	return index
}
