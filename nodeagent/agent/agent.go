// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent puts the node agent's parts together, in the order in which data flows:
//
//	intake → tables → planner → tables → followers → drivers (the kernel)
//	                                                   │
//	         operator ◄── reporter ◄── state ◄── flows, counters
//
// The drivers are handed in: the binary gives real ones, tests give fakes. One goroutine plans and writes maps (sync.go), so
// that what is written in which order can be read in one place; WireGuard, the search for interfaces, flows and reports
// each have their own, because each may wait for somebody else.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/settings"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/flow"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/plan"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config of the agent.
type Config struct {
	Node     string
	Version  string
	OwnCNI   bool
	Snapshot string // file; empty: none is kept
	// SaveEvery gathers what is written to the snapshot.
	SaveEvery time.Duration
	// RelayTimeout is how long an agent that starts with a snapshot waits for newer records from the relay.
	RelayTimeout time.Duration
	// EventsPerTick limits the datapath's events, per CPU and tick (about a second).
	EventsPerTick uint32
	// SkipServices are left to kube-proxy, as namespace/name.
	SkipServices []string
	// Problems found while the drivers were opened; they don't go away by themselves.
	Problems []report.Problem
	Log      *slog.Logger
}

// flowsKept is how many flows can be asked for afterwards.
const flowsKept = 4096

// Agent is a node agent.
type Agent struct {
	cfg     Config
	drivers Drivers
	log     *slog.Logger

	Tables   *table.Tables
	Intake   *intake.Intake
	Flows    *flow.Ring
	Reporter *report.Reporter

	planner   *plan.Planner
	cluster   string    // that is planned for
	planning  time.Time // since when
	loop      *apply.Loop
	policy    *policy.Switch
	publisher *policy.Publisher // from the first plan on
	held      map[uint32]uint32 // lines of the groups of policy in the tables
	finder    *endpoints.Finder
	settings  *settings.Writer
	wireguard *wireguard.Runner
	tunnels   *tunnels
	namer     *flow.Namer
	relay     *relay.Client // nil in tests that feed the intake themselves
	wakes     wakeup.Signal
	also      []part

	// What Removable reports the version of; the sync loop's alone.
	complete        *intake.Completeness
	completeVersion uint64
	indexesFree     bool   // those that only the kernel knew were given back
	foundFor        uint64 // the version that the finder was made to look for
	released        bool   // memory was, after this many snapshots
	releasedAfter   int

	mu     sync.Mutex
	synced Synced
}

// part runs beside the agent's own.
type part struct {
	name string
	run  func(context.Context) error
	err  func() error
}

// Also runs something beside the agent's own parts. err says what is wrong with it, for reports.
func (a *Agent) Also(name string, run func(context.Context) error, err func() error) {
	a.also = append(a.also, part{name, run, err})
}

// New puts an agent together. client may be nil: then somebody else feeds the Intake.
func New(cfg Config, drivers Drivers, client *relay.Client) *Agent {
	a := &Agent{cfg: cfg, drivers: drivers, log: cfg.Log, relay: client, wakes: wakeup.New(), Flows: flow.NewRing(flowsKept)}
	a.Tables = table.New()
	a.Intake = intake.New(intake.Config{
		Tables: a.Tables, Node: cfg.Node, Version: cfg.Version, Snapshot: cfg.Snapshot, Every: cfg.SaveEvery, Changed: a.wake, Log: cfg.Log.With("part", "intake"),
	})
	a.loop = a.datapathLoop()
	a.finder = endpoints.NewFinder(endpoints.FinderConfig{
		Tables: a.Tables, Links: drivers.Links, Changed: func() { a.wake(); a.changed() }, Log: cfg.Log.With("part", "endpoints"),
	})
	a.wireguard = a.newWireGuard()
	a.tunnels = &tunnels{tables: a.Tables}
	a.namer = flow.NewNamer(a.Tables, cfg.Node, a.Intake.Cluster)
	if client != nil {
		a.Reporter = report.NewReporter(a.State, client.Report, cfg.Log.With("part", "report"))
		a.Reporter.Starting = func() bool { return !a.Synced().inForce || a.wireguard.Status().Device == nil }
	}
	return a
}

// datapathLoop orders what is written to the maps: what must not leave the node in the clear first, then the rows
// that policy needs, what addresses mean, and the switch of policy; programs after their maps, and services last, because
// a connection may follow at once. What goes, goes backwards.
func (a *Agent) datapathLoop() *apply.Loop {
	t, d := a.Tables, a.drivers
	rows, sw := policy.New(t, d.Policy, policy.Closed)
	a.policy = sw
	addresses := routes.New(t, d.Routes, routes.Removable{Ranges: a.removableRanges, Addresses: a.removableAddresses}, sw.RangesChanged)
	sw.Watch(addresses.Ranges, addresses.Addresses)
	steps := []apply.Step{addresses.Guards, addresses.Peers}
	steps = append(steps, rows...)
	steps = append(steps, sw.Hold(addresses.Ranges), addresses.Addresses, sw)
	if d.Outdated != nil {
		d.Endpoints.Hooks = upgrade{Target: d.Endpoints.Hooks, outdated: d.Outdated, filled: a.filled}
	}
	steps = append(steps, endpoints.Steps(t, d.Endpoints, a.removableHooks)...)
	steps = append(steps, services.Steps(t, d.Services)...)
	loop := apply.NewLoop(t, steps...)
	a.settings = settings.New(t, d.Settings, a.cfg.EventsPerTick)
	loop.After(a.settings.Hook())
	return loop
}

func (a *Agent) newWireGuard() *wireguard.Runner {
	var hostRoutes apply.Step
	if a.drivers.HostRoutes != nil {
		hostRoutes = routes.HostStep(a.Tables, a.drivers.HostRoutes, a.removableRoutes)
	}
	return wireguard.New(wireguard.Config{
		Tables: a.Tables, Open: a.drivers.OpenWireGuard, Routes: hostRoutes, Complete: a.planned, Removable: a.removablePeers,
		Changed: a.changed, Log: a.cfg.Log.With("part", "wireguard"),
	})
}

// Run works until ctx ends or a part fails for good. The kernel keeps what it has either way.
func (a *Agent) Run(ctx context.Context, socket string) error {
	if err := a.Intake.Restore(); err != nil {
		a.log.Warn("starting without the last snapshot", "error", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	run := func(name string, f func(context.Context) error) {
		parts.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	run("snapshot", a.Intake.Save)
	run("relay-timeout", a.waitForRelay)
	if a.relay != nil {
		run("intake", func(ctx context.Context) error { return a.relay.Run(ctx, a.Intake.Resume, a.Intake.Handle) })
		run("report", a.Reporter.Run)
	}
	run("sync", a.syncLoop)
	run("endpoints", func(ctx context.Context) error { return a.finder.Run(ctx, a.planned) })
	run("wireguard", a.wireguard.Run)
	if a.drivers.Events != nil {
		run("flows", func(ctx context.Context) error { return flow.Read(ctx, a.drivers.Events, a.namer, a.Flows) })
	}
	for _, p := range a.also {
		run(p.name, p.run)
	}
	if socket != "" {
		server := &report.Server{Socket: socket, Now: a.Detailed, Ring: a.Flows, Log: a.log.With("part", "socket")}
		run("socket", server.Run)
	}
	<-ctx.Done()
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// waitForRelay lets what the disk holds count when the relay has not answered in time.
func (a *Agent) waitForRelay(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-time.After(a.cfg.RelayTimeout):
		a.Intake.StopWaiting()
		a.wake()
	}
	return nil
}

// wake makes the sync loop look again; changed makes the reporter look again.
func (a *Agent) wake() {
	a.wakes.Raise()
}

func (a *Agent) changed() {
	if a.Reporter != nil {
		a.Reporter.Changed()
	}
}

// resyncEvery is how often everything is compared with the kernel though nothing changed.
const resyncEvery = 10 * time.Minute
