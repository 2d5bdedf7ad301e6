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
	"sync"
	"time"

	"github.com/cilium/statedb"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Device is the door to WireGuard.
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
	// Complete says whether the tables hold everything.
	Complete func() bool
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
)

// Runner keeps the device.
type Runner struct {
	cfg   Config
	peers *peers
	loop  *apply.Loop

	mu     sync.Mutex
	device Device
	synced bool
	err    error
}

// New makes a runner.
func New(cfg Config) (*Runner, error) {
	r := &Runner{cfg: cfg, peers: &peers{keys: map[uint16]wireguard.Key{}, ready: map[uint16]bool{}}}
	step, err := apply.Follow(cfg.Tables.Peers, r.peers)
	if err != nil {
		return nil, err
	}
	steps := []apply.Step{step}
	if cfg.Routes != nil {
		steps = append(steps, cfg.Routes)
	}
	r.loop = apply.NewLoop(cfg.Tables.DB, steps...)
	r.loop.After(func(context.Context, []apply.Outcome) error { return r.tellReady() })
	return r, nil
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
	txn := r.cfg.Tables.DB.ReadTxn()
	for row := range r.cfg.Tables.Settings.All(txn) {
		on = row.Value.Encryption
	}
	changed = r.cfg.Tables.Settings.Watch(txn)
	return on, changed
}

// serve brings changes to the device until it breaks.
func (r *Runner) serve(ctx context.Context, device Device) error {
	r.peers.device = device
	if err := r.tellDevice(device); err != nil {
		return err
	}
	r.loop.Resync()
	r.set(func() { r.device, r.err = device, nil })
	again := time.Now().Add(lookAgain)
	for {
		on, changed := r.encryption()
		if !on {
			return r.turnOff()
		}
		pass, err := r.loop.Pass(ctx, time.Now(), func(string) bool { return r.cfg.Complete() })
		if err != nil {
			return err
		}
		if r.cfg.Complete() {
			if err := r.finish(device, pass); err != nil {
				return err
			}
		}
		until := again
		if !pass.Retry.IsZero() && pass.Retry.Before(again) {
			until = pass.Retry
		}
		if err := apply.Wait(ctx, until, append(pass.Watch, changed)...); err != nil {
			return err
		}
		if time.Now().Before(again) {
			continue
		}
		again = time.Now().Add(lookAgain)
		if err := r.tellDevice(device); err != nil {
			return err
		}
		r.loop.Resync()
	}
}

// finish follows a pass: strangers' peers go, what is set is saved for the userspace process.
func (r *Runner) finish(device Device, pass apply.Pass) error {
	changed := !r.Status().Synced
	for _, o := range pass.Outcomes {
		changed = changed || o.Written+o.Removed > 0
	}
	if !changed {
		return nil
	}
	if err := r.prune(device); err != nil {
		return err
	}
	if err := device.Save(); err != nil {
		// A full disk must not stop the mesh: only a restart of the userspace process needs the file.
		r.cfg.Log.Warn("saving the peers", "error", err)
		r.set(func() { r.synced, r.err = true, err })
		return nil
	}
	r.set(func() { r.synced, r.err = true, nil })
	return nil
}

// prune removes peers that the device has from an earlier run and nobody wants.
func (r *Runner) prune(device Device) error {
	wanted := map[string]bool{}
	for row := range r.cfg.Tables.Peers.All(r.cfg.Tables.DB.ReadTxn()) {
		wanted[row.Value.PublicKey] = true
	}
	have, err := device.Peers()
	if err != nil {
		return fmt.Errorf("reading the device's peers: %w", err)
	}
	for _, p := range have {
		if wanted[p.PublicKey.String()] {
			continue
		}
		if err := device.RemovePeer(p.PublicKey); err != nil {
			return err
		}
	}
	return nil
}

// tellDevice lets the datapath know the device.
func (r *Runner) tellDevice(device Device) error {
	ifindex, mtu, err := device.Device()
	if err != nil {
		return err
	}
	t := r.cfg.Tables
	return t.Write(func(txn statedb.WriteTxn) error {
		return errors.Join(
			t.Tunnel.Set(txn, owner, map[string]table.Device{"tunnel": {Ifindex: uint32(ifindex), MTU: uint32(mtu)}}),
			t.Hooks.Set(txn, owner, map[table.Hook]table.Attachment{
				{Role: table.RoleTunnel, Ifindex: uint32(ifindex)}: {Name: "tunnel"},
			}),
		)
	}, t.Tunnel.Meta(), t.Hooks.Meta())
}

// turnOff takes the device from the datapath; it stays as it is, for the day somebody wants it again.
func (r *Runner) turnOff() error {
	t := r.cfg.Tables
	return t.Write(func(txn statedb.WriteTxn) error {
		return errors.Join(t.Tunnel.Set(txn, owner, nil), t.Hooks.Set(txn, owner, nil), t.PeerFlags.Set(txn, owner, nil))
	}, t.Tunnel.Meta(), t.Hooks.Meta(), t.PeerFlags.Meta())
}

// tellReady lets the datapath know the peers.
func (r *Runner) tellReady() error {
	rows := map[uint16]bpf.Peer{}
	for index := range r.peers.ready {
		rows[index] = bpf.Peer{Flags: bpf.PeerReady}
	}
	t := r.cfg.Tables
	return t.Write(func(txn statedb.WriteTxn) error { return t.PeerFlags.Set(txn, owner, rows) }, t.PeerFlags.Meta())
}
