// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// device is WireGuard in memory.
type device struct {
	mu    sync.Mutex
	peers map[wireguard.Key]wireguard.Peer
	saved map[wireguard.Key]bool
	reads int
	saves int
	fails bool

	removed map[wireguard.Key]int // how often
}

func (d *device) PublicKey() wireguard.Key  { return wireguard.Key{0xff} }
func (d *device) ListenPort() int           { return 51871 }
func (d *device) Implementation() string    { return "test" }
func (d *device) Device() (int, int, error) { return 9, 1420, nil }
func (d *device) locked() func()            { d.mu.Lock(); return d.mu.Unlock }
func (d *device) set(f func(*device))       { defer d.locked()(); f(d) }
func (d *device) keys() (out []wireguard.Key) {
	defer d.locked()()
	return slices.Collect(maps.Keys(d.peers))
}

func (d *device) SetPeer(p wireguard.Peer) error {
	defer d.locked()()
	if d.fails {
		return errors.New("the device is stuck")
	}
	d.peers[p.PublicKey] = p
	return nil
}

func (d *device) RemovePeer(k wireguard.Key) error {
	defer d.locked()()
	delete(d.peers, k)
	if d.removed == nil {
		d.removed = map[wireguard.Key]int{}
	}
	d.removed[k]++
	return nil
}

func (d *device) Peers() ([]wireguard.Status, error) {
	defer d.locked()()
	d.reads++
	var out []wireguard.Status
	for _, p := range d.peers {
		out = append(out, wireguard.Status{Peer: p})
	}
	return out, nil
}

func (d *device) Save() error {
	defer d.locked()()
	d.saves++
	d.saved = map[wireguard.Key]bool{}
	for k := range d.peers {
		d.saved[k] = true
	}
	return nil
}

type world struct {
	t        *testing.T
	tables   *table.Tables
	setting  *table.Owned[string, table.Setting]
	peers    *table.Owned[uint16, *topology.Peer]
	device   *device
	runner   *Runner
	complete atomic.Bool
	dark     atomic.Bool // the cluster of peers without a row
	lit      func()      // called before dark is read
	ready    atomic.Bool // the userspace process
}

func start(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.run()
	return w
}

func newWorld(t *testing.T) *world {
	tables := table.New()
	w := &world{t: t, tables: tables, device: &device{peers: map[wireguard.Key]wireguard.Peer{}}}
	w.ready.Store(true)
	p := tables.ForPlan()
	w.setting, w.peers = table.NewOwned(p.Settings), table.NewOwned(p.Peers)
	w.runner = New(Config{
		Tables: tables, Complete: w.complete.Load, Removable: w.removable, Changed: func() {}, Log: slog.New(slog.DiscardHandler),
		Open: func() (Device, error) {
			if !w.ready.Load() {
				return nil, fmt.Errorf("opening: %w", wireguard.ErrNotReady)
			}
			return w.device, nil
		},
	})
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.runner.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) removable() (uint64, func([]netip.Prefix) bool) {
	if w.lit != nil {
		w.lit()
	}
	if !w.complete.Load() || w.dark.Load() {
		return 1, nil
	}
	return 2, func([]netip.Prefix) bool { return true }
}

func (w *world) want(encryption bool, peers map[uint16]*topology.Peer) {
	w.t.Helper()
	w.tables.Write(func(txn *table.Txn) {
		w.setting.Set(txn, "test", map[string]table.Setting{"config": {Encryption: encryption}})
		w.peers.Set(txn, "test", peers)
	})
}

// eventually waits for what another goroutine brings about.
func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it never came about: %s", what)
		}
	}
}

func (w *world) flags(index uint16) uint32 {
	row, ok := w.tables.PeerFlags.Get(index)
	if !ok {
		return 0
	}
	return row.Value.Flags
}

func key(n byte) wireguard.Key { return wireguard.Key{n} }

func peer(n byte) *topology.Peer {
	return &topology.Peer{
		Cluster: "west", Node: fmt.Sprintf("west-%d", n), PublicKey: record.PublicKey(key(n)),
		Endpoint: netip.MustParseAddrPort("10.21.0.1:51871"), AllowedIPs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.24.%d.0/24", n))},
	}
}

func TestAPeerIsReadyWhenTheDeviceHasItsKey(t *testing.T) {
	w := start(t)
	w.ready.Store(false)
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	if w.flags(1) != 0 {
		t.Fatal("ready without a device")
	}
	w.ready.Store(true)
	w.eventually("peer 1 is ready", func() bool { return w.flags(1)&bpf.PeerReady != 0 })
	if row, ok := w.tables.Tunnel.Get("tunnel"); !ok || row.Value != (table.Device{Ifindex: 9, MTU: 1420}) {
		t.Errorf("tunnel = %+v", row)
	}
	if _, ok := w.tables.Hooks.Get(table.Hook{Role: table.RoleTunnel, Ifindex: 9}); !ok {
		t.Error("the tunnel device has no hook")
	}
	// A device that can't be changed for a moment: the new peer waits, the old one keeps working.
	w.device.set(func(d *device) { d.fails = true })
	moved := peer(1)
	moved.AllowedIPs = append(moved.AllowedIPs, netip.MustParsePrefix("10.24.99.1/32"))
	w.want(true, map[uint16]*topology.Peer{1: moved, 2: peer(2)})
	w.eventually("peer 2 failed", func() bool {
		row, ok := w.tables.Peers.Get(2)
		return ok && row.Status.State == table.Failed
	})
	if w.flags(1)&bpf.PeerReady == 0 || w.flags(2) != 0 {
		t.Errorf("flags of 1: %d, of 2: %d", w.flags(1), w.flags(2))
	}
	w.device.set(func(d *device) { d.fails = false })
	w.eventually("peer 2 is ready", func() bool { return w.flags(2)&bpf.PeerReady != 0 })
}

func TestANewKeyReplacesTheOld(t *testing.T) {
	w := start(t)
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	w.eventually("the first key", func() bool { return slices.Equal(w.device.keys(), []wireguard.Key{key(1)}) })
	w.want(true, map[uint16]*topology.Peer{1: peer(5)})
	w.eventually("the new key alone", func() bool { return slices.Equal(w.device.keys(), []wireguard.Key{key(5)}) })
	w.want(true, nil)
	w.eventually("no peer", func() bool { return len(w.device.keys()) == 0 && w.flags(1) == 0 })
}

func TestStrangersGoOnlyWhenEverythingIsKnown(t *testing.T) {
	w := start(t)
	w.device.set(func(d *device) { d.peers[key(9)] = wireguard.Peer{PublicKey: key(9)} }) // from an earlier run
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	w.eventually("peer 1 is ready", func() bool { return w.flags(1) != 0 })
	if len(w.device.keys()) != 2 {
		t.Fatalf("peers = %v: an earlier run's was removed too early", w.device.keys())
	}
	w.complete.Store(true)
	w.want(true, map[uint16]*topology.Peer{1: peer(1), 2: peer(2)})
	w.eventually("the stranger is gone and the rest is saved", func() bool {
		defer w.device.locked()()
		return len(w.device.peers) == 2 && w.device.saved[key(1)] && w.device.saved[key(2)] && !w.device.saved[key(9)]
	})
}

// A cluster's peers stay while nothing is known of it, and go one by one when it is. A peer whose row comes in that moment is
// not one that nobody wants, also if the device refuses to change it.
func TestAPeerThatComesWithItsClusterStays(t *testing.T) {
	for _, refused := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused=%t", refused), func(t *testing.T) { comesWithItsCluster(t, refused) })
	}
}

func comesWithItsCluster(t *testing.T, refused bool) {
	var come atomic.Bool
	w := newWorld(t)
	w.lit = func() {
		if come.CompareAndSwap(true, false) {
			w.device.set(func(d *device) { d.fails = refused })
			w.want(true, map[uint16]*topology.Peer{1: peer(1), 2: peer(2)})
			w.dark.Store(false)
		}
	}
	w.device.set(func(d *device) {
		d.peers[key(2)] = wireguard.Peer{PublicKey: key(2)}
		d.peers[key(9)] = wireguard.Peer{PublicKey: key(9)}
	})
	w.complete.Store(true)
	w.dark.Store(true)
	w.run()
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	w.eventually("peer 1 is saved", func() bool { defer w.device.locked()(); return w.device.saved[key(1)] })
	if len(w.device.keys()) != 3 {
		t.Fatalf("peers = %v: those of a dark cluster went", w.device.keys())
	}
	come.Store(true)
	w.runner.Wake()
	w.eventually("the stranger is gone, on the disk too", func() bool {
		defer w.device.locked()()
		return len(w.device.peers) == 2 && w.device.saved[key(2)] && !w.device.saved[key(9)]
	})
	defer w.device.locked()()
	if n := w.device.removed[key(2)]; n != 0 {
		t.Errorf("peer 2 was removed %d times", n)
	}
}

func TestWithoutEncryptionTheDatapathHasNoTunnel(t *testing.T) {
	w := start(t)
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	w.eventually("peer 1 is ready", func() bool { return w.flags(1) != 0 })
	w.want(false, nil)
	w.eventually("the tunnel is gone", func() bool {
		return w.tables.Tunnel.Len()+w.tables.Hooks.Len()+w.tables.PeerFlags.Len() == 0
	})
	w.want(true, map[uint16]*topology.Peer{1: peer(1)})
	w.eventually("peer 1 is ready again", func() bool { return w.flags(1) != 0 && w.tables.Tunnel.Len() == 1 })
}

// In a large mesh nodes come and go all the time: none of that reads the device or writes all peers to the disk.
func TestAChangeOfAPeerCostsThePeer(t *testing.T) {
	w := start(t)
	w.complete.Store(true)
	const many = 5000
	peers := map[uint16]*topology.Peer{}
	for i := range uint16(many) {
		p := *peer(1)
		p.Node, p.PublicKey = fmt.Sprint("n", i), record.PublicKey{byte(i), byte(i >> 8), 7}
		peers[i+1] = &p
	}
	w.want(true, peers)
	w.eventually("all peers are set and saved", func() bool {
		var n int
		w.device.set(func(d *device) { n = len(d.saved) })
		return n == many
	})
	count := func() (reads, saves int) {
		w.device.set(func(d *device) { reads, saves = d.reads, d.saves })
		return reads, saves
	}
	reads, saves := count()
	for i := range uint16(10) {
		changed := maps.Clone(peers)
		p := *peers[i+1]
		p.PublicKey[5] = 1
		changed[i+1], peers = &p, changed
		w.want(true, changed)
		w.eventually("the change is in the device", func() bool {
			defer w.device.locked()()
			_, ok := w.device.peers[wireguard.Key(p.PublicKey)]
			return ok && len(w.device.peers) == many
		})
	}
	if r, s := count(); r != reads || s > saves+1 {
		t.Errorf("ten changes read the device %d times and saved it %d times", r-reads, s-saves)
	}
	w.eventually("the changes are saved in the end", func() bool {
		defer w.device.locked()()
		return w.device.saved[wireguard.Key(peers[10].PublicKey)]
	})
}
