// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agent puts the node agent's parts together, in the order in which data flows:
//
//	intake → tables → planner → tables → followers → doors (the kernel)
//	                                                   │
//	         operator ◄── reporter ◄── state ◄── flows, counters
//
// The doors are handed in: the binary gives real ones, tests give fakes. One goroutine plans and writes maps (sync.go), so
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
	// Patience is how long an agent that starts with a snapshot waits for the relay's newer word.
	Patience time.Duration
	// EventsPerTick limits what the datapath tells, per CPU and tick (about a second).
	EventsPerTick uint32
	// SkipServices are left to kube-proxy, as namespace/name.
	SkipServices []string
	// Problems found while the doors were opened; they don't go away by themselves.
	Problems []report.Problem
	Log      *slog.Logger
}

// flowsKept is how many flows can be asked for afterwards.
const flowsKept = 4096

// Agent is a node agent.
type Agent struct {
	cfg   Config
	doors Doors
	log   *slog.Logger

	Tables   *table.Tables
	Intake   *intake.Intake
	Flows    *flow.Ring
	Reporter *report.Reporter

	planner   *plan.Planner
	loop      *apply.Loop
	finder    *endpoints.Finder
	wireguard *wireguard.Runner
	namer     *flow.Namer
	relay     *relay.Client // nil in tests that feed the intake themselves
	wakes     wakeup
	policy    *policy.Switch
	health    health
	also      []part

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
func New(cfg Config, doors Doors, client *relay.Client) (*Agent, error) {
	a := &Agent{cfg: cfg, doors: doors, log: cfg.Log, relay: client, wakes: newWakeup(), Flows: flow.NewRing(flowsKept)}
	var err error
	if a.Tables, err = table.New(); err != nil {
		return nil, err
	}
	a.Intake = intake.New(intake.Config{
		Tables: a.Tables, Node: cfg.Node, Snapshot: cfg.Snapshot, Changed: a.wake, Log: cfg.Log.With("part", "intake"),
	})
	a.loop = a.datapathLoop()
	a.finder = endpoints.NewFinder(endpoints.FinderConfig{
		Tables: a.Tables, Links: doors.Links, Changed: func() { a.wake(); a.changed() }, Log: cfg.Log.With("part", "endpoints"),
	})
	a.withWireGuard()
	a.namer = flow.NewNamer(a.Tables, cfg.Node, a.Intake.Cluster)
	if client != nil {
		a.Reporter = report.NewReporter(a.State, client.Report, cfg.Log.With("part", "report"))
		a.Reporter.Starting = func() bool { return !a.Synced().Planned || a.wireguard.Status().Device == nil }
	}
	return a, nil
}

// datapathLoop orders what is written to the maps: what policies are made of, what addresses mean, then the policy itself
// by one switch, then who may use it, programs after their maps, and services last, because a connection may follow at
// once.
func (a *Agent) datapathLoop() *apply.Loop {
	t, d := a.Tables, a.doors
	steps, sw := policy.New(t, d.Policy, policy.Closed)
	r := routes.New(t, d.Routes, routes.Removable{}, sw.RangesChanged)
	sw.Watch(r.Ranges)
	steps = append(steps, r.Guards, r.Peers, sw.Hold(r.Ranges), r.Addresses, sw)
	steps = append(steps, endpoints.Steps(t, d.Endpoints)...)
	steps = append(steps, services.Steps(t, d.Services)...)
	a.policy = sw
	loop := apply.NewLoop(t, steps...)
	loop.After(settings.New(t, d.Settings, a.cfg.EventsPerTick).After)
	return loop
}

func (a *Agent) withWireGuard() {
	var hostRoutes apply.Step
	if a.doors.HostRoutes != nil {
		hostRoutes = routes.HostStep(a.Tables, a.doors.HostRoutes)
	}
	a.wireguard = wireguard.New(wireguard.Config{
		Tables: a.Tables, Open: a.doors.OpenWireGuard, Routes: hostRoutes, Complete: a.planned,
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
	run("patience", a.patience)
	if a.relay != nil {
		run("intake", func(ctx context.Context) error { return a.relay.Run(ctx, a.Intake.Resume, a.Intake.Handle) })
		run("report", a.Reporter.Run)
	}
	run("sync", a.syncLoop)
	run("endpoints", func(ctx context.Context) error { return a.finder.Run(ctx, a.planned) })
	run("wireguard", a.wireguard.Run)
	if a.doors.Events != nil {
		run("flows", func(ctx context.Context) error { return flow.Read(ctx, a.doors.Events, a.namer, a.Flows) })
	}
	for _, p := range a.also {
		run(p.name, p.run)
	}
	if socket != "" {
		server := &report.Server{Socket: socket, Now: a.State, Ring: a.Flows, Log: a.log.With("part", "socket")}
		run("socket", server.Run)
	}
	<-ctx.Done()
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// patience waits for the relay a while, and then goes by what the disk says.
func (a *Agent) patience(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-time.After(a.cfg.Patience):
		a.Intake.StopWaiting()
		a.wake()
	}
	return nil
}

// Close lets go of the tables.
func (a *Agent) Close() error { return a.Tables.Close() }

// wake makes the sync loop look again; changed makes the reporter look again.
func (a *Agent) wake() { a.wakes.wake() }

func (a *Agent) changed() {
	if a.Reporter != nil {
		a.Reporter.Changed()
	}
}

// resyncEvery is how often everything is compared with the kernel though nothing changed.
const resyncEvery = 10 * time.Minute
