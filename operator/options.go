// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/observe"
)

// Limits on requests to the API server: a whole cluster's identities at once, yet no flood.
const (
	kubeQPS   = 200
	kubeBurst = 400
)

// options are the command line's.
type options struct {
	namespace      string
	kubeconfig     string
	relayAddress   string
	metricsAddress string
	healthAddress  string
	leaderElect    bool
	ciliumPolicies bool
	logLevel       slog.Level
}

func parseFlags(args []string) (options, error) {
	o := options{}
	fs := flag.NewFlagSet("operator", flag.ContinueOnError)
	fs.StringVar(&o.namespace, "namespace", envOr("POD_NAMESPACE", "fairlead-system"), "namespace the operator runs in; its Secrets and leases are there")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file, for running outside of a cluster")
	fs.StringVar(&o.relayAddress, "relay-address", ":4240", "address on which node agents are served")
	fs.StringVar(&o.metricsAddress, "metrics-address", ":9640", "address of Prometheus metrics; 0 turns them off")
	fs.StringVar(&o.healthAddress, "health-address", ":9641", "address of /healthz and /readyz")
	fs.BoolVar(&o.leaderElect, "leader-elect", true, "elect a leader among replicas; only it writes")
	fs.BoolVar(&o.ciliumPolicies, "cilium-policies", false, "enforce CiliumNetworkPolicies and CiliumClusterwideNetworkPolicies; not where Cilium itself does")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "DEBUG, INFO, WARN or ERROR")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return o, nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

func newManager(o options) (manager.Manager, error) {
	cfg, err := kubeConfig(o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the Kubernetes API: %w", err)
	}
	cfg.QPS, cfg.Burst = kubeQPS, kubeBurst
	cfg.UserAgent = "fairlead-operator/" + version

	cacheOptions := observe.CacheOptions()
	// The operator may read Secrets of its own namespace only, so that is all it watches.
	own := cache.ByObject{Namespaces: map[string]cache.Config{o.namespace: {}}}
	cacheOptions.ByObject = map[client.Object]cache.ByObject{&corev1.Secret{}: own, &corev1.ConfigMap{}: own}

	mgr, err := ctrl.NewManager(cfg, manager.Options{
		Scheme:                        newScheme(),
		Cache:                         cacheOptions,
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "fairlead-operator",
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.healthAddress,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the controller manager: %w", err)
	}
	return mgr, nil
}

func kubeConfig(file string) (*rest.Config, error) {
	if file != "" {
		return clientcmd.BuildConfigFromFlags("", file)
	}
	return ctrl.GetConfig()
}
