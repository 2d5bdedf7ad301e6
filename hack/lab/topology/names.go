// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"net/netip"
)

// Addresses of the hub, the same in every instance: the shared etcd and the
// Git server stand for machines that belong to no cluster.
var (
	HubGateway4 = netip.MustParsePrefix("10.99.0.1/24")
	HubGateway6 = netip.MustParsePrefix("fd99::1/64")
	HubEtcd4    = netip.MustParsePrefix("10.99.0.10/24")
	HubEtcd6    = netip.MustParsePrefix("fd99::10/64")
	HubGit4     = netip.MustParsePrefix("10.99.0.20/24")
	HubGit6     = netip.MustParsePrefix("fd99::20/64")
)

// EtcdURL is the shared etcd as the clusters reach it.
const EtcdURL = "https://10.99.0.10:2379"

// GitURL is the Git server as the clusters reach it.
const GitURL = "http://10.99.0.20"

// NetNS names the network namespace of one of the instance's parts: a node,
// a cluster's router (by the cluster's name), the WAN or the hub.
func (in *Instance) NetNS(part string) string { return in.Name + "-" + part }

// Cgroup names the cgroup, in every hierarchy, of one of the instance's parts.
func (in *Instance) Cgroup(part string) string { return in.Name + "-" + part }

// UplinkName is the interface in the root namespace.
func (in *Instance) UplinkName() string { return "fl-" + in.Name }

// UplinkRoot is the root namespace's end of the uplink.
func (in *Instance) UplinkRoot() netip.Prefix { return prefix("100.64.%d.1/30", in.Index) }

// UplinkWAN is the WAN's end of the uplink.
func (in *Instance) UplinkWAN() netip.Prefix { return prefix("100.64.%d.2/30", in.Index) }

// UplinkNet covers every address of the instance that the root namespace
// reaches.
func (in *Instance) UplinkNet() netip.Prefix { return prefix("100.64.%d.0/24", in.Index) }

// UplinkEtcd is the shared etcd as seen from the root namespace.
func (in *Instance) UplinkEtcd() netip.Addr { return addr("100.64.%d.20", in.Index) }

// UplinkGit is the Git server as seen from the root namespace.
func (in *Instance) UplinkGit() netip.Addr { return addr("100.64.%d.21", in.Index) }

// Cluster finds a cluster by name.
func (in *Instance) Cluster(name string) (*Cluster, error) {
	for i := range in.Clusters {
		if in.Clusters[i].Name == name {
			return &in.Clusters[i], nil
		}
	}
	return nil, fmt.Errorf("instance %s has no cluster %q", in.Name, name)
}

// Node finds a node by name, and its cluster.
func (in *Instance) Node(name string) (*Node, *Cluster, error) {
	for i := range in.Clusters {
		c := &in.Clusters[i]
		for j := range c.Nodes {
			if c.Nodes[j].Name == name {
				return &c.Nodes[j], c, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("instance %s has no node %q", in.Name, name)
}

// Parts lists everything that has a namespace: the WAN and the hub, then each
// cluster's router and nodes.
func (in *Instance) Parts() []string {
	parts := []string{WAN, Hub}
	for _, c := range in.Clusters {
		parts = append(parts, c.Name)
		for _, n := range c.Nodes {
			parts = append(parts, n.Name)
		}
	}
	return parts
}

// APIServer is the URL of the cluster's API server inside the instance.
func (c *Cluster) APIServer() string { return fmt.Sprintf("https://%s:6443", c.Router4.Addr()) }

// UplinkAPIServer is the URL of the cluster's API server from the root
// namespace.
func (c *Cluster) UplinkAPIServer() string { return fmt.Sprintf("https://%s:6443", c.Uplink) }
