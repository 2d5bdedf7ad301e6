// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
	applycni "github.com/fairlead-mesh/fairlead/nodeagent/apply/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/lock"
	"github.com/fairlead-mesh/fairlead/nodeagent/metrics"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
	"github.com/fairlead-mesh/fairlead/nodeagent/tunnel"
)

// relayTimeout is more than a relay that lives needs to answer, and little to wait for one that doesn't.
const relayTimeout = 5 * time.Second

// lockWait is more than an agent needs to end.
const lockWait = time.Minute

// holder is how this process is called in the lock's file.
func holder() string {
	return fmt.Sprintf("nodeagent %s, pid %d, started at %s", version, os.Getpid(), time.Now().UTC().Format(time.RFC3339))
}

// skipServices are the control plane's own ways; see plan.Config.
var skipServices = []string{"default/kubernetes", "fairlead-system/fairlead-operator"}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	agent.LimitHeap()
	log := logger(o.verbose)
	held, err := lock.Take(ctx, filepath.Join(o.stateDir, "lock"), holder(), lockWait, log)
	if err != nil {
		return err
	}
	defer func() { _ = held.Release() }()

	// The upstream.
	client := relay.NewClient(relay.ClientConfig{
		Targets: o.operators(), TLS: intake.TLS(o.caFile, o.serverName), Token: intake.Token(o.tokenFile),
		Node: o.node, Logger: log.With("part", "relay"),
	})

	// The kernel's side.
	node := &node{options: o}
	drivers, problems, closeDrivers := openDrivers(o, node, log)
	defer closeDrivers()

	// What lies between.
	a := agent.New(agent.Config{
		Node: o.node, Version: version, OwnCNI: o.cni == "own", Snapshot: filepath.Join(o.stateDir, "snapshot"), SaveEvery: o.saveEvery,
		RelayTimeout:  relayTimeout,
		EventsPerTick: uint32(o.events), SkipServices: skipServices, Problems: problems, Log: log,
	}, drivers, client)
	node.agent = a
	o.cniPaths.BPFDir = o.bpfDir
	switch o.cni {
	case "own", "chained":
		installer := applycni.New(applycni.Config{
			Tables: a.Tables, Node: o.node, Cluster: a.Intake.Cluster, Plugin: o.cniPaths, Tunnel: o.device,
			Chained: o.cni == "chained", Log: log.With("part", "cni"),
		})
		a.Also("cni", installer.Run, installer.Err)
	}
	if o.cni != "chained" { // it may have been before
		if err := cni.Unchain(o.cniPaths); err != nil {
			log.Error("the CNI plugin is still chained behind another one's", "error", err)
		}
	}
	a.Also("metrics", metricsServer(o, drivers, a.Tables, log).Run, func() error { return nil })
	log.Info("node agent", "version", version, "node", o.node, "operator", o.operator, "datapath", drivers.Mode)
	return a.Run(ctx, o.socket)
}

// metricsServer tells what the datapath counts, where there is one.
func metricsServer(o options, d agent.Drivers, t *table.Tables, log *slog.Logger) *metrics.Server {
	log = log.With("part", "metrics")
	s := &metrics.Server{Address: o.metrics, Log: log}
	if d.Counters != nil && d.RuleCounters != nil {
		rule := func(id uint32) (table.Rule, bool) {
			row, known := t.Rules.Get(id)
			return row.Value, known
		}
		s.Collectors = append(s.Collectors, metrics.NewCollector(metrics.Datapath{Counters: d.Counters, RuleCounters: d.RuleCounters}, rule, log))
	}
	return s
}

// openDrivers opens what this node has. What is missing is a problem to be told, not a reason to stay away: the operator
// hears of it from the report, and the rest goes on.
func openDrivers(o options, node *node, log *slog.Logger) (agent.Drivers, []report.Problem, func()) {
	var problems []report.Problem
	problem := func(code string, err error) {
		log.Error("this node lacks something", "what", code, "error", err)
		problems = append(problems, report.Problem{Code: code, Message: err.Error()})
	}
	drivers, closeDrivers, err := openDatapath(o, log, problem)
	if err != nil {
		problem("datapath", err)
		drivers = agent.Broken(err)
	}
	drivers.Links = endpoints.Kernel{NodeAddresses: node.addresses, Tunnel: o.device}
	if table, err := routes.Open(); err != nil {
		problem("routes", err)
	} else {
		drivers.HostRoutes = table
	}
	drivers.OpenWireGuard = node.openWireGuard(log)
	return drivers, problems, closeDrivers
}

func openDatapath(o options, log *slog.Logger, problem func(string, error)) (agent.Drivers, func(), error) {
	nothing := func() {}
	if err := datapath.MountBPFFS(o.bpfDir); err != nil {
		return agent.Drivers{}, nothing, err
	}
	sizes, err := o.sizes()
	if err != nil {
		return agent.Drivers{}, nothing, err
	}
	d, err := datapath.Open(datapath.Config{
		Dir: o.bpfDir, Mode: datapath.Mode(o.datapath), Sizes: sizes, Log: log.With("part", "datapath"),
	})
	if err != nil {
		return agent.Drivers{}, nothing, err
	}
	cgroup := o.cgroupRoot
	if cgroup == "" {
		if cgroup, err = datapath.FindCgroup(); err != nil {
			problem("services", fmt.Errorf("service addresses are not translated: %w", err))
		}
	}
	drivers := agent.OfDatapath(d, cgroup)
	events, err := d.Events()
	if err != nil {
		problem("flows", err)
	} else {
		drivers.Events = events
	}
	return drivers, func() {
		if events != nil {
			_ = events.Close()
		}
		if err := d.Close(); err != nil {
			log.Debug("closing the datapath", "error", err)
		}
	}, nil
}

// node answers what drivers ask about this node.
type node struct {
	options options
	agent   *agent.Agent
}

// addresses of this node as the operator knows them.
func (n *node) addresses() []netip.Addr {
	if n.agent == nil {
		return nil
	}
	rec, ok := n.agent.Tables.Nodes.Get(record.NodeKey(n.agent.Intake.Cluster(), n.options.node))
	if !ok {
		return nil
	}
	return rec.Addresses
}

// openWireGuard opens the device with the MTU that fits through every uplink.
func (n *node) openWireGuard(log *slog.Logger) func() (wireguard.Device, error) {
	return func() (wireguard.Device, error) {
		cfg := kernelwg.Config{
			Device: n.options.device, StateDir: filepath.Join(n.options.stateDir, "wireguard"), ListenPort: n.options.port,
			Log: log.With("part", "wireguard"),
		}
		uplinks, err := links.Uplinks(n.addresses(), nil, n.options.device)
		if err != nil {
			return nil, err
		}
		for i, u := range uplinks {
			if mtu := kernelwg.MTU(u.MTU); i == 0 || mtu < cfg.MTU {
				cfg.MTU = mtu
			}
		}
		return agent.OpenKernelWireGuard(cfg)()
	}
}

// runTunnel serves the WireGuard device.
func runTunnel(ctx context.Context, args []string) error {
	o, log, err := parseTunnel(args)
	if err != nil {
		return err
	}
	return tunnel.Run(ctx, tunnel.Config{
		Device: o.device, StateDir: filepath.Join(o.stateDir, "wireguard"), ListenPort: o.port, Log: log,
	})
}
