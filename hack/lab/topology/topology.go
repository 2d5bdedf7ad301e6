// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package topology describes a lab instance: which clusters, nodes, links and
// addresses it has. It is pure arithmetic on names and numbers; the packages
// that touch the machine (netlab, controlplane, node, hub) read it and never
// invent an address of their own.
//
// Inside an instance every address is the same for all instances, since each
// lives in its own network namespaces. Only the uplink, the one link into the
// root namespace, carries the instance's index.
//
//	              root namespace
//	                   │ uplink 100.64.<index>.0/30
//	east router ──── wan ──── west router        links 10.90.N.0/30
//	 │ br0 10.11.0.1   │         │ br0 10.21.0.1
//	east-1 east-2     hub      west-1 west-2
//	             10.99.0.10 etcd, 10.99.0.20 git
package topology

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Names of the namespaces that are neither a cluster's router nor a node.
const (
	WAN = "wan"
	Hub = "hub"
)

// KnownClusters lists the clusters an instance can have; a cluster's number
// is its place in this list, so that its addresses do not depend on which
// others were asked for.
var KnownClusters = []string{"east", "west", "north"}

// Spec is what a user asks for.
type Spec struct {
	Name     string   `json:"name"`
	Clusters []string `json:"clusters"`
	Nodes    int      `json:"nodes"`
}

// Instance is a whole lab: its clusters, the WAN between them and the hub.
type Instance struct {
	Spec
	// Index tells the instances of a machine apart, in the uplink's addresses.
	Index    int
	Clusters []Cluster
}

// Cluster is one Kubernetes cluster with its router namespace, which also
// runs the control plane.
type Cluster struct {
	Name   string
	Number int
	Nodes  []Node

	Router4, Router6 netip.Prefix // br0 in the router's namespace
	Pods4, Pods6     netip.Prefix
	Svc4, Svc6       netip.Prefix
	DNS4, DNS6       netip.Addr // the cluster DNS service
	API4, API6       netip.Addr // the "kubernetes" service
	// CNI tells whether the lab installs the reference CNI plugins'
	// configuration. Where it does not, nodes wait for somebody's agent.
	CNI bool
	// Uplink is the control plane's address as seen from the root namespace.
	Uplink netip.Addr
	WAN    Link
}

// Node is one Kubernetes node.
type Node struct {
	Name         string
	Cluster      string
	Addr4, Addr6 netip.Prefix
}

// Link is a point-to-point link; Near is the WAN's end.
type Link struct {
	Near4, Far4 netip.Prefix
	Near6, Far6 netip.Prefix
}

const (
	maxIndex = 250
	maxNodes = 20
)

// Instance names end up in interface names (15 characters, "fl-" before) and,
// followed by a dash, in cgroup and namespace names: without dashes of their
// own, no instance's names are a prefix of another's.
var nameRE = regexp.MustCompile(`^[a-z][a-z0-9]{0,9}$`)

// ValidName tells whether name can name an instance.
func ValidName(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("instance name %q: want 1 to 10 lower-case letters and digits, a letter first", name)
	}
	return nil
}

// New lays out the instance that spec asks for.
func New(spec Spec, index int) (*Instance, error) {
	if err := ValidName(spec.Name); err != nil {
		return nil, err
	}
	if index < 0 || index > maxIndex {
		return nil, fmt.Errorf("instance index %d: want 0 to %d", index, maxIndex)
	}
	if spec.Nodes < 1 || spec.Nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes a cluster: want 1 to %d", spec.Nodes, maxNodes)
	}
	if len(spec.Clusters) == 0 {
		return nil, fmt.Errorf("no clusters: want some of %s", strings.Join(KnownClusters, ", "))
	}
	in := &Instance{Spec: spec, Index: index}
	for i, name := range spec.Clusters {
		number := slices.Index(KnownClusters, name) + 1
		if number == 0 {
			return nil, fmt.Errorf("cluster %q: want one of %s", name, strings.Join(KnownClusters, ", "))
		}
		if slices.Contains(spec.Clusters[:i], name) {
			return nil, fmt.Errorf("cluster %q named twice", name)
		}
		in.Clusters = append(in.Clusters, newCluster(name, number, spec.Nodes, index))
	}
	return in, nil
}

func newCluster(name string, n, nodes, index int) Cluster {
	c := Cluster{
		Name:    name,
		Number:  n,
		Router4: prefix("10.%d1.0.1/24", n),
		Router6: prefix("fd00:%d1::1/64", n),
		Pods4:   prefix("10.%d4.0.0/16", n),
		Pods6:   prefix("fd00:%d4::/48", n),
		Svc4:    prefix("10.%d6.0.0/16", n),
		Svc6:    prefix("fd00:%d6::/108", n),
		DNS4:    addr("10.%d6.0.10", n),
		DNS6:    addr("fd00:%d6::a", n),
		API4:    addr("10.%d6.0.1", n),
		API6:    addr("fd00:%d6::1", n),
		CNI:     name == "east",
		Uplink:  addr("100.64.%d.%d", index, 10+n),
		WAN: Link{
			Near4: prefix("10.90.%d.1/30", n), Far4: prefix("10.90.%d.2/30", n),
			Near6: prefix("fd90:%d::1/64", n), Far6: prefix("fd90:%d::2/64", n),
		},
	}
	for i := 1; i <= nodes; i++ {
		c.Nodes = append(c.Nodes, Node{
			Name:    fmt.Sprintf("%s-%d", name, i),
			Cluster: name,
			Addr4:   prefix("10.%d1.0.%d/24", n, 10+i),
			Addr6:   prefix("fd00:%d1::%d/64", n, 10+i),
		})
	}
	return c
}

func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

func addr(format string, args ...any) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(format, args...))
}
