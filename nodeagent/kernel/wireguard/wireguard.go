// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wireguard is the driver of this node's WireGuard device.
//
// Peers come in one by one from the reconciler and go to the device one by
// one: the device is never reconfigured as a whole, so a change of one node
// costs one node and disturbs nobody's session. Where the kernel has
// WireGuard the driver makes the device itself; where it has not, the device is
// served by the userspace process of package tunnel and the driver only talks
// to it.
//
// The private key is made here, on the node, and never leaves it. Key and
// peers are kept on disk (Save), so that the userspace process can come back
// without anybody's help.
package wireguard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Defaults of a node.
const (
	DefaultDevice   = "fairlead0"
	DefaultStateDir = "/var/lib/fairlead/wireguard"
	DefaultPort     = 51871
	DefaultMTU      = 1420

	// SocketDir is where a userspace device's control socket lies. The path is
	// fixed by WireGuard's cross-platform convention; agent and tunnel both
	// mount the node's directory there.
	SocketDir = "/var/run/wireguard"

	// overhead of a datagram around a packet: IPv6 header 40, UDP 8,
	// WireGuard 32. The IPv4 outer header is 20 bytes smaller, but a peer's
	// address family must not decide about the pods' MTU.
	overhead = 80
	// minMTU is what IPv6 demands of every link.
	minMTU = 1280
)

// ErrNotReady tells that the userspace process doesn't serve the device yet;
// everything will work once it does, so the caller retries.
var ErrNotReady = errors.New("userspace WireGuard isn't ready")

// MTU of a tunnel over links whose smallest MTU is underlay.
func MTU(underlay int) int { return max(underlay-overhead, minMTU) }

// Config of the driver. Zero values mean the defaults above.
type Config struct {
	Device     string
	StateDir   string
	ListenPort int
	MTU        int
	// Keepalive keeps a NAT's mapping open; 0 for nodes that reach each other.
	Keepalive time.Duration
	Log       *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Device == "" {
		c.Device = DefaultDevice
	}
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if c.ListenPort == 0 {
		c.ListenPort = DefaultPort
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Peer is another node: its key, where it listens and which addresses only it
// may send from.
type Peer struct {
	PublicKey  Key            `json:"publicKey"`
	Endpoint   netip.AddrPort `json:"endpoint"`
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
}

// Status is a peer as the device sees it.
type Status struct {
	Peer          // Endpoint is where the peer was last heard, which may differ from what was set
	LastHandshake time.Time
	ReceivedBytes int64
	SentBytes     int64
}

// Device is the open driver. Its methods may be called from several goroutines.
type Device struct {
	cfg    Config
	impl   Implementation
	client *wgctrl.Client
	key    wgtypes.Key
	bin    wgtypes.Key

	mu     sync.Mutex
	served socketID             // which run of the userspace process the knowledge below is about
	have   map[Key]*known       // what the device holds
	owner  map[netip.Prefix]Key // which peer the device lets a prefix belong to
	want   map[Key]Peer         // what was asked for through this driver
}

// known is what the device holds of a peer.
type known struct {
	told    netip.AddrPort // the endpoint we last set, not where the peer roamed to
	allowed map[netip.Prefix]bool
}

// Open makes sure of the key and of the device and brings the device up. It
// returns an error that wraps ErrNotReady while the userspace process isn't
// there; the key exists then nevertheless.
func Open(cfg Config) (*Device, error) {
	cfg = cfg.withDefaults()
	key, err := LoadOrCreateKey(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	impl, err := Detect(cfg.Device)
	if err != nil {
		return nil, err
	}
	bin, err := wgtypes.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("opening WireGuard's control interface: %w", err)
	}
	d := &Device{cfg: cfg, impl: impl, client: client, key: wgtypes.Key(key), bin: bin, want: map[Key]Peer{}}
	if err := d.start(); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return d, nil
}

func (d *Device) start() error {
	if err := ensureLink(d.cfg, d.impl); err != nil {
		return err
	}
	told := map[Key]netip.AddrPort{}
	state, err := LoadState(d.cfg.StateDir)
	if err != nil {
		// What was told is only needed to respect roaming: a node without
		// this file sets every endpoint once more.
		d.cfg.Log.Warn("the saved peers can't be read; they will be written anew", "error", err)
	}
	for _, p := range state.Peers {
		told[p.PublicKey] = p.Endpoint
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.served = d.socket()
	return d.learn(told)
}

// PublicKey of this node.
func (d *Device) PublicKey() Key { return Key(d.key.PublicKey()) }

// ListenPort of this node.
func (d *Device) ListenPort() int { return d.cfg.ListenPort }

// Implementation tells which WireGuard carries the packets.
func (d *Device) Implementation() string { return string(d.impl) }

// Device returns the link's index and MTU.
func (d *Device) Device() (ifindex, mtu int, err error) {
	link, err := netlink.LinkByName(d.cfg.Device)
	if err != nil {
		return 0, 0, fmt.Errorf("looking up device %s: %w", d.cfg.Device, err)
	}
	return link.Attrs().Index, link.Attrs().MTU, nil
}

// SetPeer adds or changes one peer. Setting what is already set costs nothing
// and touches nothing; an endpoint is only written when ours changed, since a
// peer may have roamed.
func (d *Device) SetPeer(p Peer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.PublicKey == d.PublicKey() {
		return fmt.Errorf("setting peer %s: that is this node's own key", p.PublicKey)
	}
	if err := d.current(); err != nil {
		return err
	}
	p.AllowedIPs = slices.Clone(p.AllowedIPs)
	d.want[p.PublicKey] = p
	return d.apply(p)
}

// RemovePeer removes one peer; removing an absent one is no error.
func (d *Device) RemovePeer(key Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.want, key)
	if err := d.current(); err != nil {
		return err
	}
	return d.remove(key)
}

// Peers reads the device, and what it holds counts from then on: a peer that
// somebody else took away is set anew by the next SetPeer. What a restarted
// userspace process lost is set again on the way.
func (d *Device) Peers() ([]Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.current(); err != nil {
		return nil, err
	}
	dev, err := d.read()
	if err != nil {
		return nil, err
	}
	d.holds(dev, d.told())
	out := make([]Status, 0, len(dev.Peers))
	for _, p := range dev.Peers {
		out = append(out, status(p))
	}
	slices.SortFunc(out, func(a, b Status) int { return a.PublicKey.compare(b.PublicKey) })
	return out, nil
}

// Save writes the device's peers to disk, from where the userspace process
// takes them when it restarts. Call it after a batch of changes.
func (d *Device) Save() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.current(); err != nil {
		return err
	}
	state := State{
		ListenPort: d.cfg.ListenPort, MTU: d.cfg.MTU,
		KeepaliveSeconds: int(d.cfg.Keepalive / time.Second),
	}
	for key, k := range d.have {
		state.Peers = append(state.Peers, Peer{PublicKey: key, Endpoint: k.told, AllowedIPs: sortedPrefixes(k.allowed)})
	}
	slices.SortFunc(state.Peers, func(a, b Peer) int { return a.PublicKey.compare(b.PublicKey) })
	return SaveState(d.cfg.StateDir, state)
}

// Close lets go of the device, which stays as it is.
func (d *Device) Close() error { return d.client.Close() }
