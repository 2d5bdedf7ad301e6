// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// operator is the one per-cluster controller of Fairlead: it exports this cluster's records, exchanges them with other
// clusters through the shared etcd, streams everything to the node agents, applies policies from Git, and says in status
// how it goes. Every replica serves agents; the leader writes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/operator/controllers"
	"github.com/fairlead-mesh/fairlead/operator/federate"
	"github.com/fairlead-mesh/fairlead/operator/gitops"
	"github.com/fairlead-mesh/fairlead/operator/identities"
	"github.com/fairlead-mesh/fairlead/operator/observe"
	"github.com/fairlead-mesh/fairlead/operator/report"
	"github.com/fairlead-mesh/fairlead/operator/serve"
)

// version is set when releases are built.
var version = "dev"

// eventSource is the name that events are sent under.
const eventSource = "fairlead-operator"

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		slog.Error("operator ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	opts, err := parseFlags(args)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: opts.logLevel}))
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	log.Info("fairlead operator", "version", version, "namespace", opts.namespace)

	mgr, err := newManager(opts)
	if err != nil {
		return err
	}
	if err := wire(mgr, opts, log); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// wire builds the parts in the order in which data walks through them.
func wire(mgr manager.Manager, opts options, log *slog.Logger) error {
	kube, events := mgr.GetClient(), mgr.GetEventRecorder(eventSource)

	// Kubernetes → records.
	observer := observe.New(mgr.GetCache(), version, log)
	flux := &observe.Kustomizations{Live: mgr.GetAPIReader(), Observer: observer}
	warnings := controllers.NewWarnings(kube, events, log)
	allocator := identities.New(kube, observer, log)

	// Records ⇄ shared etcd, and everybody's records → hub.
	hub := relay.NewHub(relay.DefaultHistory)
	intake := federate.NewIntake(hub, log)
	decider := federate.NewDecider(mgr.GetCache(), intake, log)
	connection := federate.NewConnection(mgr.GetCache(), opts.namespace, mgr.Elected(), intake, log)
	discoverer := federate.NewDiscoverer(kube, intake, events, log)

	// The hub is first: agents of this cluster hear of a change before anybody else is told.
	observer.AddSinks(intake, decider, connection, allocator, warnings)

	// Hub → agents, and their reports → MeshNodes.
	reporter := report.New(kube, log)
	tokens := serve.NewTokens(kube, opts.namespace)
	server := relay.NewServer(hub, relay.ServerConfig{Authenticate: tokens.Authenticate, Report: reporter.Report, Logger: log})
	certificates := &serve.Certificates{Client: kube, Namespace: opts.namespace, Log: log}
	door := &serve.Relay{Address: opts.relayAddress, Namespace: opts.namespace, Server: server, Reader: kube, Ready: decider.Ready(), Log: log}
	registerMetrics(hub, server)

	// Git → policies.
	policies := &gitops.Reconciler{Client: kube, Live: mgr.GetAPIReader(), Events: events, Log: log, Limits: gitops.DefaultLimits()}
	if err := policies.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up policy sources: %w", err)
	}

	// Everything → status.
	status := controllers.NewStatus(controllers.StatusConfig{
		Client: kube, Cache: mgr.GetCache(), Connection: connection, Intake: intake, Discoverer: discoverer,
		Events: events, Log: log, Version: version,
	})
	intake.OnChange(status.Wake)
	observer.AddSinks(status)

	for _, part := range []manager.Runnable{observer, flux, warnings, allocator, decider, connection, discoverer, certificates, door, status} {
		if err := mgr.Add(part); err != nil {
			return fmt.Errorf("add %T: %w", part, err)
		}
	}
	return addChecks(mgr, door)
}

func addChecks(mgr manager.Manager, door *serve.Relay) error {
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	serving := func(*http.Request) error {
		if !door.Open() {
			return errors.New("the relay is not open: this cluster needs a ClusterMesh named \"mesh\", and the leader's certificate")
		}
		return nil
	}
	if err := mgr.AddReadyzCheck("relay", serving); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return nil
}
