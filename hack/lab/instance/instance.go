// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package instance puts the parts of a lab together: it brings an instance
// up, takes it down and gives access to what is in it. The command line is a
// thin layer above this package, and tests use it directly.
//
// An instance's files are in a directory of its own. A registry below /run
// says which instances this machine has, whatever state directory they use,
// so that their names and uplink addresses never clash.
package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairlead-mesh/fairlead/hack/lab/controlplane"
	"github.com/fairlead-mesh/fairlead/hack/lab/hub"
	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/node"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Lab is an instance that was brought up, wholly or in part.
type Lab struct {
	Topology *topology.Instance
	Dir      string // its state directory
}

// Open finds an instance that was brought up.
func Open(name string) (*Lab, error) {
	if err := topology.ValidName(name); err != nil {
		return nil, err
	}
	e, err := readEntry(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no instance %q: bring it up with `lab up --instance %s`", name, name)
	}
	if err != nil {
		return nil, err
	}
	return load(name, e)
}

func load(name string, e entry) (*Lab, error) {
	raw, err := os.ReadFile(filepath.Join(e.Dir, specFile))
	if err != nil {
		return nil, fmt.Errorf("instance %s is incomplete: %w", name, err)
	}
	var spec topology.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("read what instance %s is made of: %w", name, err)
	}
	in, err := topology.New(spec, e.Index)
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", name, err)
	}
	return &Lab{Topology: in, Dir: e.Dir}, nil
}

const specFile = "instance.json"

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

// Kubeconfig is an administrator's kubeconfig for the cluster. It works from
// the root namespace.
func (l *Lab) Kubeconfig(cluster string) (string, error) {
	cp, err := l.controlPlane(cluster)
	if err != nil {
		return "", err
	}
	return cp.Kubeconfig(), nil
}

func (l *Lab) controlPlane(cluster string) (*controlplane.ControlPlane, error) {
	c, err := l.Topology.Cluster(cluster)
	if err != nil {
		return nil, err
	}
	return controlplane.Open(l.Topology, c, l.path("clusters", c.Name))
}

func (l *Lab) node(c *topology.Cluster, n *topology.Node) *node.Node {
	return node.Open(l.Topology, c, n, l.path("nodes", n.Name))
}

// nodes lists the nodes of the named clusters, or of all.
func (l *Lab) nodes(clusters ...string) ([]*node.Node, error) {
	var all []*node.Node
	if len(clusters) == 0 {
		clusters = l.Topology.Spec.Clusters
	}
	for _, name := range clusters {
		c, err := l.Topology.Cluster(name)
		if err != nil {
			return nil, err
		}
		for i := range c.Nodes {
			all = append(all, l.node(c, &c.Nodes[i]))
		}
	}
	return all, nil
}

// Hub is the instance's shared etcd and Git server.
func (l *Lab) Hub() *hub.Hub { return hub.Open(l.Topology, l.path("hub"), l.path("bin/lab")) }

// Where is the place of one of the instance's parts: a node, a cluster's
// router (by the cluster's name), "wan" or "hub". Only nodes have a mount
// namespace of their own.
func (l *Lab) Where(part string) (process.Where, error) {
	if n, c, err := l.Topology.Node(part); err == nil {
		return l.node(c, n).Where(), nil
	}
	for _, p := range l.Topology.Parts() {
		if p == part {
			return process.Where{NetNS: netlab.Path(l.Topology.NetNS(part))}, nil
		}
	}
	return process.Where{}, fmt.Errorf("instance %s has no part %q: want one of %v", l.Topology.Name, part, l.Topology.Parts())
}
