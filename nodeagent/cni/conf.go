// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cni is Fairlead's own small CNI plugin, for clusters that bring
// none: a veth pair per pod, routed, without a bridge.
//
// The agent installs it (Install) as soon as it knows the node's pod CIDRs:
// the plugin's binary and a configuration that carries all it needs, so that
// pods start and end while the agent is away. The container runtime then
// calls the binary (package plugin), which reserves addresses (package ipam)
// and connects the pod (package pod).
//
// Beside another CNI the same binary can be chained behind it (Chain). It then
// connects nobody, and only closes the interface that the other CNI made.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	// PluginName is the plugin's binary and its type in the configuration.
	PluginName = "fairlead-cni"
	// NetworkName is the network's name in the configuration.
	NetworkName = "fairlead"
	// DefaultBPFDir is where the agent pins its programs, as the node sees it.
	DefaultBPFDir = "/sys/fs/bpf/fairlead"
	// DefaultStateDir holds the address reservations.
	DefaultStateDir = "/var/lib/fairlead/cni"
	// DefaultMTU is the tunnel's, so that no packet must be split on its way.
	DefaultMTU = 1420
)

// NetConf is the plugin's part of the network configuration.
type NetConf struct {
	types.PluginConf
	// Chained says that another plugin connects the pods.
	Chained bool `json:"chained,omitempty"`
	// BPFDir is where the agent pins the programs that close an interface.
	BPFDir string `json:"bpfDir,omitempty"`
	// PodCIDRs are the node's own. A pod gets one address of each family.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// NodeAddresses are what the node speaks to its pods from.
	NodeAddresses []netip.Addr `json:"nodeAddresses,omitempty"`
	MTU           int          `json:"mtu,omitempty"`
	StateDir      string       `json:"stateDir,omitempty"`
}

// ParseConf reads and checks what the runtime hands to the plugin.
func ParseConf(raw []byte) (*NetConf, error) {
	var c NetConf
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("parsing the network configuration: %w", err)
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if c.BPFDir == "" {
		c.BPFDir = DefaultBPFDir
	}
	if !filepath.IsAbs(c.BPFDir) {
		return nil, fmt.Errorf("the network configuration's bpfDir %q is no absolute path", c.BPFDir)
	}
	if c.Chained {
		if len(c.PodCIDRs) > 0 {
			return nil, errors.New("the network configuration has podCIDRs, but it is chained: another plugin gives out addresses")
		}
		return &c, nil
	}
	if c.MTU < 576 || c.MTU > 65535 {
		return nil, fmt.Errorf("the network configuration's mtu %d is outside 576 to 65535", c.MTU)
	}
	if len(c.PodCIDRs) == 0 {
		return nil, errors.New("the network configuration has no podCIDRs")
	}
	for _, p := range c.PodCIDRs {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("the network configuration's podCIDR %s is no network prefix", p)
		}
	}
	return &c, nil
}
