// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
)

// options of the agent. Inside a pod of config/nodeagent none needs to be given.
type options struct {
	node       string
	operator   string
	serverName string
	caFile     string
	tokenFile  string
	stateDir   string
	saveEvery  time.Duration
	socket     string
	metrics    string
	bpfDir     string
	datapath   string
	cgroupRoot string
	device     string
	port       int
	cni        string
	cniPaths   cni.Config
	events     uint
	mapSizes   string
	mapMemory  string
	verbose    bool
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("nodeagent run", flag.ContinueOnError)
	f.StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "this node's name (environment: NODE_NAME)")
	f.StringVar(&o.operator, "operator", operatorAddress(), "comma-separated host:port of the operator's relay (default: from the environment that Kubernetes gives a pod for the Service fairlead-operator)")
	f.StringVar(&o.serverName, "operator-name", "fairlead-relay", "name in the relay's certificate")
	f.StringVar(&o.caFile, "operator-ca", "/etc/fairlead/relay-ca/ca.crt", "authority of the relay's certificate")
	f.StringVar(&o.tokenFile, "token", "/var/run/secrets/fairlead/token", "token that proves this agent to the relay")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/fairlead", "where the last snapshot and the WireGuard key are kept")
	f.DurationVar(&o.saveEvery, "save-every", intake.DefaultEvery, "records that changed are written to the state directory at most once in this time")
	f.StringVar(&o.socket, "socket", report.DefaultSocket, "where observe and status ask")
	f.StringVar(&o.metrics, "metrics-address", ":9642", "address of Prometheus metrics; 0 turns them off")
	f.StringVar(&o.bpfDir, "bpf-dir", datapath.DefaultDir, "where maps and programs are pinned")
	f.StringVar(&o.datapath, "datapath", string(datapath.Auto), "how programs are attached: auto, tcx or clsact")
	f.StringVar(&o.cgroupRoot, "cgroup-root", "", "cgroup2 directory that holds this node's pods (default: found from the agent's own)")
	f.StringVar(&o.device, "device", wireguard.DefaultDevice, "name of the WireGuard device")
	f.IntVar(&o.port, "port", wireguard.DefaultPort, "UDP port of WireGuard")
	f.StringVar(&o.cni, "cni", "none", "own: this node's pods are connected by Fairlead's CNI plugin; chained: by another CNI, and Fairlead's plugin behind it closes their interfaces until policy is there; none: by another CNI alone")
	f.StringVar(&o.cniPaths.PluginPath, "cni-plugin", cni.DefaultPluginPath, "the plugin's binary")
	f.StringVar(&o.cniPaths.BinDir, "cni-bin-dir", cni.DefaultBinDir, "where the container runtime looks for plugins")
	f.StringVar(&o.cniPaths.ConfDir, "cni-conf-dir", cni.DefaultConfDir, "where the container runtime looks for configurations")
	f.StringVar(&o.mapSizes, "map-sizes", "", "sizes of maps that are to have others than by default or before, as name=rows,… (docs/reference/map-sizes.md)")
	f.StringVar(&o.mapMemory, "map-memory", "", "scale all maps so that they cost about this much when all are full: bytes, with KiB, MiB or GiB, or a percentage of the node's memory")
	f.UintVar(&o.events, "events", 1000, "verdicts told per second and CPU; 0: no limit")
	f.BoolVar(&o.verbose, "v", false, "log details")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, o.check()
}

func (o options) check() error {
	var errs []error
	if o.node == "" {
		errs = append(errs, errors.New("--node (or NODE_NAME) is needed: whose pods are mine?"))
	}
	if o.operator == "" {
		errs = append(errs, errors.New("--operator is needed: FAIRLEAD_OPERATOR_SERVICE_HOST is not set, so the Service fairlead-operator did not exist in this namespace when this pod was made; make it and delete this pod"))
	}
	for _, target := range o.operators() {
		if _, _, err := net.SplitHostPort(target); err != nil {
			errs = append(errs, fmt.Errorf("--operator: %w", err))
		}
	}
	switch datapath.Mode(o.datapath) {
	case datapath.Auto, datapath.TCX, datapath.Clsact:
	default:
		errs = append(errs, fmt.Errorf("--datapath=%q: want auto, tcx or clsact", o.datapath))
	}
	if o.saveEvery <= 0 {
		errs = append(errs, fmt.Errorf("--save-every=%s: want more than 0", o.saveEvery))
	}
	if _, err := o.sizes(); err != nil {
		errs = append(errs, err)
	}
	if !slices.Contains([]string{"own", "chained", "none"}, o.cni) {
		errs = append(errs, fmt.Errorf("--cni=%q: want own, chained or none", o.cni))
	}
	if o.port < 1 || o.port > 65535 {
		errs = append(errs, fmt.Errorf("--port=%d is no port", o.port))
	}
	return errors.Join(errs...)
}

// sizes are those of the maps that the flags choose; nil if they choose none.
func (o options) sizes() (map[string]uint32, error) {
	out := map[string]uint32{}
	if o.mapMemory != "" {
		bytes, err := datapath.ParseMemory(o.mapMemory)
		if err != nil {
			return nil, fmt.Errorf("--map-memory: %w", err)
		}
		if out, err = datapath.SizesFor(bytes); err != nil {
			return nil, fmt.Errorf("--map-memory: %w", err)
		}
	}
	single, err := datapath.ParseSizes(o.mapSizes)
	if err != nil {
		return nil, fmt.Errorf("--map-sizes: %w", err)
	}
	maps.Copy(out, single)
	return out, nil
}

func (o options) operators() []string {
	var out []string
	for t := range strings.SplitSeq(o.operator, ",") {
		if t = strings.TrimSpace(t); t != "" {
			out = append(out, t)
		}
	}
	return out
}

// operatorAddress needs no DNS, which may itself wait for the network that the agent brings up.
func operatorAddress() string {
	host, port := os.Getenv("FAIRLEAD_OPERATOR_SERVICE_HOST"), os.Getenv("FAIRLEAD_OPERATOR_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}
