// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/settings"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/flow"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Drivers are everything that touches the node.
type Drivers struct {
	Policy    policy.Driver
	Routes    routes.Driver
	Endpoints endpoints.Driver
	Services  services.Driver
	Settings  settings.Driver

	Links         endpoints.Links
	HostRoutes    routes.HostTable // nil: the host's routes are left alone
	OpenWireGuard func() (wireguard.Device, error)

	// AttachSockets turns service translation on; nil: there is none on this node.
	AttachSockets func() error
	// Settle is called after the first complete pass.
	Settle func() error
	// Outdated says of a hook whether its programs use maps that an upgrade replaces; nil: none do.
	Outdated func(table.Hook) bool
	// Events of the datapath; nil: none are read.
	Events flow.Source
	// Counters of the datapath.
	Counters     func() (map[datapath.Counter]bpf.Counter, error)
	RuleCounters func() (map[bpf.RuleKey]bpf.Counter, error)
	// MapSizes are how many rows each map has room for, by name; a map that is missing has no limit.
	MapSizes map[string]uint32
	// Mode says how programs sit on interfaces.
	Mode string
}

// OfDatapath fills in the drivers of maps, programs and counters.
func OfDatapath(d *datapath.Datapath, cgroup string) Drivers {
	return Drivers{
		Policy: policy.Driver{
			Sets: d.Sets(), Classes: d.Classes(), Members: d.Members(), Blocks: d.Blocks(), Groups: d.Groups(), Subjects: d.Subjects(), Epochs: d,
		},
		Routes: routes.Driver{
			Peers: d.Peers(), Ranges: d.Ranges(), Guards: d.Guards(), Addresses: d.Addresses(), AddressEpochs: d.AddressEpochs(),
		},
		Endpoints: endpoints.Driver{Ifaces: d.Ifaces(), Locals: d.Locals(), Hooks: d.Hooks()},
		Services:  services.Driver{Slots: d.Slots(), Frontends: d.Frontends()},
		Settings:  d,

		AttachSockets: attachSockets(d, cgroup),
		Settle:        d.Settle,
		Outdated:      d.Outdated,
		Counters:      d.Counters,
		RuleCounters:  d.RuleCounters,
		MapSizes:      d.Sizes(),
		Mode:          string(d.Mode()),
	}
}

func attachSockets(d *datapath.Datapath, cgroup string) func() error {
	if cgroup == "" {
		return nil
	}
	return func() error { return d.AttachSockets(cgroup) }
}

// OpenKernelWireGuard opens the node's device.
func OpenKernelWireGuard(cfg kernelwg.Config) func() (wireguard.Device, error) {
	return func() (wireguard.Device, error) { return kernelwg.Open(cfg) }
}
