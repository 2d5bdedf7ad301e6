// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cni makes this node use our own CNI plugin, where an administrator chose it: it installs the plugin when the
// node's pod CIDRs are known, which makes the kubelet call the node's network ready, and lets pods talk to the world. Or it
// chains the plugin behind another CNI's, whose business all of that is then.
package cni

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/masquerade"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config of the installer.
type Config struct {
	Tables  *table.Tables
	Node    string
	Cluster func() string
	Plugin  cni.Config // paths; the rest is filled in
	Chained bool       // behind another CNI's plugin
	Tunnel  string     // the tunnel device's name
	Log     *slog.Logger
}

// lookEvery is how often what is installed is compared with what should be: somebody may clean the directory up.
const lookEvery = 2 * time.Second

// Installer installs.
type Installer struct {
	cfg  Config
	last masquerade.Config

	mu  sync.Mutex
	err error
}

// New makes an installer.
func New(cfg Config) *Installer { return &Installer{cfg: cfg} }

// Err says why the plugin is not installed.
func (i *Installer) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// Run works until ctx ends.
func (i *Installer) Run(ctx context.Context) error {
	for {
		err := i.once()
		i.mu.Lock()
		if err != nil && (i.err == nil || i.err.Error() != err.Error()) {
			i.cfg.Log.Warn("the CNI plugin is not installed", "error", err)
		}
		i.err = err
		i.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

var errNoNode = errors.New("the operator has not told this node's pod CIDRs yet")

func (i *Installer) once() error {
	if i.cfg.Chained {
		return cni.Chain(i.cfg.Plugin)
	}
	t := i.cfg.Tables
	node, ok := t.Nodes.Get(record.NodeKey(i.cfg.Cluster(), i.cfg.Node))
	if !ok || len(node.PodCIDRs) == 0 {
		return errNoNode
	}
	plugin := i.cfg.Plugin
	plugin.PodCIDRs, plugin.NodeAddresses = slices.Clone(node.PodCIDRs), slices.Clone(node.Addresses)
	for row := range t.Tunnel.All() {
		plugin.MTU = int(row.Value.MTU)
	}
	masq := masquerade.Config{PodCIDRs: plugin.PodCIDRs, Tunnel: i.cfg.Tunnel}
	for _, c := range t.Clusters.All() {
		masq.Except = append(masq.Except, c.PodCIDRs...)
	}
	slices.SortFunc(masq.Except, netip.Prefix.Compare)
	held, err := masquerade.Held(masq)
	if err != nil {
		return err
	}
	if !held || !reflect.DeepEqual(masq, i.last) {
		if err := masquerade.Apply(masq); err != nil {
			return err
		}
		i.last = masq
	}
	return cni.Install(plugin)
}
