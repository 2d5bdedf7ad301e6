// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package assembly puts the operator's parts together, in the order in which data flows:
//
//	Git → gitops ──► cluster objects
//	Kubernetes → observer → export.State ─┬► intake ──► hub ──► relay server ──► agents
//	              identities ◄────────────┤     ▲                     │ reports
//	                                      └► connection ⇄ shared etcd ▼
//	                                            │ discoverer      reporter → MeshNodes
//	everything → status ◄───────────────────────┴─────────────────────┘
//
// Whatever is outside of the operator is handed in: the binary gives the real things, stories give fakes. Who opens the
// relay's listener, and with which certificates, is outside too.
package assembly

import (
	"context"
	"fmt"
	"log/slog"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/operator/controllers"
	"github.com/fairlead-mesh/fairlead/operator/federate"
	"github.com/fairlead-mesh/fairlead/operator/gitops"
	"github.com/fairlead-mesh/fairlead/operator/identities"
	"github.com/fairlead-mesh/fairlead/operator/observe"
	"github.com/fairlead-mesh/fairlead/operator/report"
)

// Config is what an operator is given.
type Config struct {
	Version   string
	Namespace string // the operator's own, with its Secrets
	Log       *slog.Logger

	// Client writes, and reads through the cache.
	Client client.Client
	// Live reads past the cache what isn't watched.
	Live  client.Reader
	Cache cache.Cache
	// Events takes what the owners of objects should know.
	Events recorder.EventRecorder
	// Elected is closed when this process is the leader. Parts that write must only be started then (see Parts).
	Elected <-chan struct{}
	// Authenticate checks an agent's token and gives the node it was issued to.
	Authenticate func(ctx context.Context, token string) (node string, err error)
	// CiliumPolicies has policies of Cilium's kinds enforced.
	CiliumPolicies bool
}

// Operator is an operator that isn't running: its Parts are to be started.
type Operator struct {
	Hub    *relay.Hub
	Server *relay.Server // not listening

	Observer   *observe.Observer
	Intake     *federate.Intake
	Connection *federate.Connection
	Discoverer *federate.Discoverer

	decider *federate.Decider
	parts   []manager.Runnable
}

// New puts an operator together.
func New(cfg Config) (*Operator, error) {
	log := cfg.Log
	o := &Operator{Hub: relay.NewHub(relay.DefaultHistory)}

	// Git → policies.
	sources := &gitops.Reconciler{Client: cfg.Client, Live: cfg.Live, Events: cfg.Events, Log: log, Limits: gitops.DefaultLimits()}
	policies, err := sources.Controller(cfg.Cache)
	if err != nil {
		return nil, fmt.Errorf("set up policy sources: %w", err)
	}

	// Kubernetes → records.
	o.Observer = observe.New(cfg.Cache, cfg.Version, log)
	if cfg.CiliumPolicies {
		o.Observer.Request()
	}
	o.Observer.Optional(cfg.Live, func(kind v1alpha1.PolicyKind) error { return sources.Watch(policies, cfg.Cache, kind) })
	warnings := controllers.NewWarnings(cfg.Client, cfg.Events, log)
	allocator := identities.New(cfg.Client, o.Observer, log)

	// Records ⇄ shared etcd, and everybody's records → hub.
	o.Intake = federate.NewIntake(o.Hub, log)
	o.decider = federate.NewDecider(cfg.Cache, o.Intake, log)
	o.Connection = federate.NewConnection(cfg.Cache, cfg.Namespace, cfg.Elected, o.Intake, log)
	o.Discoverer = federate.NewDiscoverer(cfg.Client, o.Intake, cfg.Events, log)

	// Hub → agents, and their reports → MeshNodes.
	reporter := report.New(cfg.Client, log)
	o.Server = relay.NewServer(o.Hub, relay.ServerConfig{Authenticate: cfg.Authenticate, Report: reporter.Report, Logger: log})

	// Everything → status.
	status := controllers.NewStatus(controllers.StatusConfig{
		Client: cfg.Client, Cache: cfg.Cache, Connection: o.Connection, Intake: o.Intake, Discoverer: o.Discoverer,
		Events: cfg.Events, Log: log, Version: cfg.Version,
	})
	o.Intake.OnChange(status.Wake)

	// The intake is first: agents of this cluster get a change before anybody else does.
	o.Observer.AddSinks(o.Intake, o.decider, o.Connection, allocator, warnings, status)

	o.parts = []manager.Runnable{policies, o.Observer, warnings, allocator, o.decider, o.Connection, o.Discoverer, status}
	return o, nil
}

// Parts are what has to be started, in any order. Those whose NeedLeaderElection says so run on the leader only.
func (o *Operator) Parts() []manager.Runnable { return o.parts }

// Ready is closed once the relay has something to give to agents.
func (o *Operator) Ready() <-chan struct{} { return o.decider.Ready() }
