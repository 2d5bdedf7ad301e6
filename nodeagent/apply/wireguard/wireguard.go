// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package wireguard brings the peers to the node's WireGuard device, and tells the datapath which of them it may use.
//
//	Settings (encryption on?) ──► device ──► Tunnel, Hooks   (so that the datapath can redirect into it)
//	Peers ──► device, one by one        ──► PeerFlags        (ready: what is sent there leaves encrypted)
//	Routes ──► the host's routes into the device
//
// A peer is ready once the device has its key: what is sent before the handshake waits in WireGuard's queue, and nothing
// ever leaves in the clear.
package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Device is the driver of WireGuard.
type Device interface {
	PublicKey() wireguard.Key
	ListenPort() int
	Implementation() string
	Device() (ifindex, mtu int, err error)
	SetPeer(wireguard.Peer) error
	RemovePeer(wireguard.Key) error
	Peers() ([]wireguard.Status, error)
	Save() error
}

// Config of the runner.
type Config struct {
	Tables *table.Tables
	// Open makes the device, or opens it.
	Open func() (Device, error)
	// Routes is the step of the host's routes, which needs the device; nil if nobody wants it.
	Routes apply.Step
	// Complete says whether the tables hold everything of this node's cluster. It and Removable are asked before the tables are
	// read, see [apply.Loop.Pass].
	Complete func() bool
	// Removable says of peers that no table wants, by their AllowedIPs, whether they are known to be nobody's. They are asked about
	// again when the version moves. Nil: none is.
	Removable func() (version uint64, may func([]netip.Prefix) bool)
	// Changed is called when there is something new to report.
	Changed func()
	Log     *slog.Logger
}

const (
	owner = "wireguard"
	// retryOpen is how often the userspace process is looked for.
	retryOpen = 500 * time.Millisecond
	// lookAgain is how often the device is compared with the tables though nothing changed.
	lookAgain = 30 * time.Second
	// savePause is the time between two saves, for each peer: a save writes them all.
	savePause = time.Millisecond
)

// Runner keeps the device.
type Runner struct {
	cfg   Config
	peers *peers
	loop  *apply.Loop
	wakes wakeup.Signal
	// What the datapath is to know.
	tunnel *table.Owned[string, table.Device]
	hooks  *table.Owned[table.Hook, table.Attachment]
	flags  table.Writer[uint16, bpf.Peer]
	// strangers are peers of the device that nobody wanted when it was read, with their addresses; nil: it is to be read.
	strangers map[wireguard.Key][]netip.Prefix
	asked     uint64 // the version of Removable that strangers were last asked about
	unsaved   bool
	nextSave  time.Time

	mu     sync.Mutex
	device Device
	synced bool
	err    error
}

// New makes a runner.
func New(cfg Config) *Runner {
	w := cfg.Tables.ForTunnel()
	r := &Runner{
		cfg: cfg, peers: newPeers(), wakes: wakeup.New(),
		tunnel: table.NewOwned(w.Tunnel), hooks: table.NewOwned(w.Hooks), flags: w.PeerFlags,
	}
	steps := []apply.Step{apply.Follow(cfg.Tables.Peers, apply.OneByOne[uint16, *topology.Peer](r.peers))}
	if cfg.Routes != nil {
		steps = append(steps, cfg.Routes)
	}
	r.loop = apply.NewLoop(cfg.Tables, steps...)
	r.loop.After(apply.Hook{Name: "peer-flags", Run: func(context.Context) error {
		r.publishReady()
		return nil
	}})
	return r
}

// Status of the device, for reports.
type Status struct {
	Device         Device // nil: not there
	Synced         bool   // every peer was brought to it at least once
	Err            error
	Implementation string
}

// Status tells how it goes.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Device: r.device, Synced: r.synced, Err: r.err}
	if r.device != nil {
		s.Implementation = r.device.Implementation()
	}
	return s
}

// Wake makes the runner look again at what is complete.
func (r *Runner) Wake() { r.wakes.Raise() }

func (r *Runner) set(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	r.cfg.Changed()
}

// Run works until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	for {
		on, changed := r.encryption()
		if !on {
			if err := apply.Wait(ctx, time.Time{}, changed); err != nil {
				return nil
			}
			continue
		}
		device, err := r.cfg.Open()
		if err == nil {
			err = r.serve(ctx, device)
		}
		if ctx.Err() != nil {
			return nil
		}
		r.set(func() { r.device, r.err = nil, err })
		if err == nil {
			continue // turned off
		}
		level := slog.LevelWarn
		if errors.Is(err, wireguard.ErrNotReady) {
			level = slog.LevelDebug // the userspace process is still starting
		}
		r.cfg.Log.Log(ctx, level, "WireGuard isn't ready", "error", err)
		if err := apply.Wait(ctx, time.Now().Add(retryOpen)); err != nil {
			return nil
		}
	}
}

// encryption says whether the cluster wants the device, and when to look again.
func (r *Runner) encryption() (on bool, changed <-chan struct{}) {
	changed = r.cfg.Tables.Settings.Watch()
	for row := range r.cfg.Tables.Settings.All() {
		on = row.Value.Encryption
	}
	return on, changed
}

// serve brings changes to the device until it breaks.
func (r *Runner) serve(ctx context.Context, device Device) error {
	r.peers.device = device
	if err := r.publishDevice(device); err != nil {
		return err
	}
	r.loop.Resync()
	r.strangers, r.nextSave = nil, time.Time{}
	r.set(func() { r.device, r.err = device, nil })
	defer func() {
		if r.unsaved {
			r.save(device, time.Now())
		}
	}()
	again := time.Now().Add(lookAgain)
	for {
		on, changed := r.encryption()
		if !on {
			r.turnOff()
			return nil
		}
		complete := r.cfg.Complete()
		version, may := r.cfg.Removable()
		pass := r.loop.Pass(ctx, time.Now(), func(string) bool { return false }) // routes go one by one, peers by prune
		if complete {
			if err := r.finish(device, pass, version, may, time.Now()); err != nil {
				return err
			}
		}
		until := again
		if r.unsaved && r.nextSave.Before(until) {
			until = r.nextSave
		}
		if !pass.Retry.IsZero() && pass.Retry.Before(again) {
			until = pass.Retry
		}
		if err := apply.Wait(ctx, until, append(pass.Watch, changed, r.wakes)...); err != nil {
			return err
		}
		if time.Now().Before(again) {
			continue
		}
		again = time.Now().Add(lookAgain)
		if err := r.publishDevice(device); err != nil {
			return err
		}
		r.loop.Resync()
		r.strangers = nil
	}
}

// finish follows a pass: strangers' peers go, what is set is saved for the userspace process.
func (r *Runner) finish(device Device, pass apply.Pass, version uint64, may func([]netip.Prefix) bool, now time.Time) error {
	changed := !r.Status().Synced
	for _, o := range pass.Outcomes {
		changed = changed || o.Written+o.Removed > 0
	}
	r.unsaved = r.unsaved || changed
	if changed && r.strangers == nil || len(r.strangers) > 0 && version != r.asked {
		if err := r.prune(device, may); err != nil {
			return err
		}
		r.asked = version
	}
	if r.unsaved && !now.Before(r.nextSave) {
		r.save(device, now)
	}
	return nil
}

// save writes the peers to the disk, the less often the more there are.
func (r *Runner) save(device Device, now time.Time) {
	r.unsaved, r.nextSave = false, now.Add(time.Duration(len(r.peers.keys))*savePause)
	err := device.Save()
	if err != nil {
		// A full disk must not stop the mesh: only a restart of the userspace process needs the file.
		r.cfg.Log.Warn("saving the peers", "error", err)
	}
	r.set(func() { r.synced, r.err = true, err })
}

// prune removes peers that the device has from an earlier run and nobody wants. The device is read for that at the start and
// once in a while, not for each change.
func (r *Runner) prune(device Device, may func([]netip.Prefix) bool) error {
	if r.strangers == nil {
		have, err := device.Peers()
		if err != nil {
			return fmt.Errorf("reading the device's peers: %w", err)
		}
		r.strangers = map[wireguard.Key][]netip.Prefix{}
		for _, p := range have {
			r.strangers[p.PublicKey] = p.AllowedIPs
		}
	}
	// Also one that the device refused to change: it works as it was.
	r.cfg.Tables.Peers.Each(func(_ uint16, p *topology.Peer, _ table.State, _ error) bool {
		delete(r.strangers, wireguard.Key(p.PublicKey))
		return true
	})
	for key, allowed := range r.strangers {
		if r.peers.users[key] == 0 {
			if may == nil || !may(allowed) {
				continue
			}
			if err := device.RemovePeer(key); err != nil {
				return err
			}
			r.unsaved = true
		}
		delete(r.strangers, key)
	}
	return nil
}

// publishDevice lets the datapath know the device.
func (r *Runner) publishDevice(device Device) error {
	ifindex, mtu, err := device.Device()
	if err != nil {
		return err
	}
	r.cfg.Tables.Write(func(txn *table.Txn) {
		r.tunnel.Set(txn, owner, map[string]table.Device{"tunnel": {Ifindex: uint32(ifindex), MTU: uint32(mtu)}})
		r.hooks.Set(txn, owner, map[table.Hook]table.Attachment{
			{Role: table.RoleTunnel, Ifindex: uint32(ifindex)}: {Name: "tunnel"},
		})
	})
	return nil
}

// turnOff takes the device from the datapath; it stays as it is, for the day somebody wants it again.
func (r *Runner) turnOff() {
	r.cfg.Tables.Write(func(txn *table.Txn) {
		r.tunnel.Set(txn, owner, nil)
		r.hooks.Set(txn, owner, nil)
		for index := range r.peers.ready {
			r.flags.Delete(txn, index)
			r.peers.news[index] = struct{}{} // for the day it is turned on again
		}
	})
}

// publishReady lets the datapath know the peers whose readiness changed.
func (r *Runner) publishReady() {
	if len(r.peers.news) == 0 {
		return
	}
	r.cfg.Tables.Write(func(txn *table.Txn) {
		for index := range r.peers.news {
			if r.peers.ready[index] {
				r.flags.Put(txn, index, bpf.Peer{Flags: bpf.PeerReady})
			} else {
				r.flags.Delete(txn, index)
			}
		}
	})
	r.peers.news = map[uint16]struct{}{}
}
