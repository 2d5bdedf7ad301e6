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
	"slices"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/fairlead-mesh/fairlead/operator/assembly"
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
	if err := start(mgr, opts, log); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// start adds the operator's parts to the manager, and the relay's listener, which is this process's own.
func start(mgr manager.Manager, opts options, log *slog.Logger) error {
	kube := mgr.GetClient()
	operator, err := assembly.New(assembly.Config{
		Version: version, Namespace: opts.namespace, Log: log,
		Client: kube, Live: mgr.GetAPIReader(), Cache: mgr.GetCache(), Events: mgr.GetEventRecorder(eventSource), Elected: mgr.Elected(),
		Authenticate:   serve.NewTokens(kube, opts.namespace).Authenticate,
		CiliumPolicies: opts.ciliumPolicies,
	})
	if err != nil {
		return fmt.Errorf("put the operator together: %w", err)
	}
	registerMetrics(operator.Hub, operator.Server)
	certificates := &serve.Certificates{Client: kube, Namespace: opts.namespace, Log: log}
	listener := &serve.Relay{
		Address: opts.relayAddress, Namespace: opts.namespace, Server: operator.Server, Reader: kube, Ready: operator.Ready(), Log: log,
	}
	for _, part := range slices.Concat(operator.Parts(), []manager.Runnable{certificates, listener}) {
		if err := mgr.Add(part); err != nil {
			return fmt.Errorf("add %T: %w", part, err)
		}
	}
	return addChecks(mgr, listener)
}

func addChecks(mgr manager.Manager, listener *serve.Relay) error {
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	serving := func(*http.Request) error {
		if !listener.Open() {
			return errors.New("the relay is not open: this cluster needs a ClusterMesh named \"mesh\", and the leader's certificate")
		}
		return nil
	}
	if err := mgr.AddReadyzCheck("relay", serving); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return nil
}
