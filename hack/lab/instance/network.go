// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

var anywhere netip.Prefix // the default route

// upNetwork makes all namespaces and links. The WAN knows the clusters' node
// networks and the hub; the pods' ranges it does not know, on purpose: to
// carry them is the mesh's work.
func upNetwork(in *topology.Instance) error {
	for _, part := range in.Parts() {
		if err := netlab.Ensure(in.NetNS(part)); err != nil {
			return err
		}
	}
	n, err := openAll(in)
	if err != nil {
		return err
	}
	defer n.close()
	for part, ns := range n.parts {
		ns.Up("lo")
		if part != topology.Hub {
			ns.Forwarding()
		}
	}
	n.uplink(in)
	n.hub(in)
	for i := range in.Clusters {
		n.cluster(in, &in.Clusters[i])
	}
	return n.err()
}

// network holds open handles on all namespaces of an instance.
type network struct {
	root  *netlab.NS
	parts map[string]*netlab.NS
}

func openAll(in *topology.Instance) (*network, error) {
	root, err := netlab.Open("")
	if err != nil {
		return nil, err
	}
	n := &network{root: root, parts: map[string]*netlab.NS{}}
	for _, part := range in.Parts() {
		if n.parts[part], err = netlab.Open(in.NetNS(part)); err != nil {
			delete(n.parts, part)
			n.close()
			return nil, err
		}
	}
	return n, nil
}

func (n *network) close() {
	n.root.Close()
	for _, ns := range n.parts {
		ns.Close()
	}
}

func (n *network) err() error {
	for _, ns := range n.parts {
		if err := ns.Err(); err != nil {
			return fmt.Errorf("lay out network: %w", err)
		}
	}
	if err := n.root.Err(); err != nil {
		return fmt.Errorf("lay out network: %w", err)
	}
	return nil
}

// uplink connects the root namespace, so that kubectl and tests reach the
// control planes.
func (n *network) uplink(in *topology.Instance) {
	wan, name := n.parts[topology.WAN], in.UplinkName()
	n.root.Veth(name, wan, "uplink")
	n.root.Addr(name, in.UplinkRoot())
	wan.Addr("uplink", in.UplinkWAN())
	n.root.Route(in.UplinkNet(), in.UplinkWAN().Addr())
}

func (n *network) hub(in *topology.Instance) {
	wan, hub := n.parts[topology.WAN], n.parts[topology.Hub]
	etcd, git := single(in.UplinkEtcd()), single(in.UplinkGit())
	wan.Veth("hub", hub, "eth0")
	wan.Addr("hub", topology.HubGateway4, topology.HubGateway6)
	hub.Addr("eth0", topology.HubEtcd4, topology.HubEtcd6, topology.HubGit4, topology.HubGit6, etcd, git)
	hub.Route(anywhere, topology.HubGateway4.Addr())
	hub.Route(anywhere, topology.HubGateway6.Addr())
	wan.Route(etcd, topology.HubEtcd4.Addr())
	wan.Route(git, topology.HubGit4.Addr())
}

func (n *network) cluster(in *topology.Instance, c *topology.Cluster) {
	wan, router := n.parts[topology.WAN], n.parts[c.Name]
	wan.Veth(c.Name, router, "wan")
	wan.Addr(c.Name, c.WAN.Near4, c.WAN.Near6)
	router.Addr("wan", c.WAN.Far4, c.WAN.Far6)
	router.Addr("lo", single(c.Uplink))
	router.Route(anywhere, c.WAN.Near4.Addr())
	router.Route(anywhere, c.WAN.Near6.Addr())
	wan.Route(c.Router4, c.WAN.Far4.Addr())
	wan.Route(c.Router6, c.WAN.Far6.Addr())
	wan.Route(single(c.Uplink), c.WAN.Far4.Addr())

	router.Bridge("br0")
	router.Addr("br0", c.Router4, c.Router6)
	for _, node := range c.Nodes {
		ns := n.parts[node.Name]
		router.Veth(node.Name, ns, "eth0")
		router.Enslave(node.Name, "br0")
		ns.Addr("eth0", node.Addr4, node.Addr6)
		ns.Route(anywhere, c.Router4.Addr())
		ns.Route(anywhere, c.Router6.Addr())
		// A service's answer from a pod on the caller's own bridge must pass
		// the node's address translation as well.
		ns.Sysctl(true, map[string]string{
			"net.bridge.bridge-nf-call-iptables":  "1",
			"net.bridge.bridge-nf-call-ip6tables": "1",
		})
	}
}

// routePods teaches the cluster where its nodes' pods are: the router, from
// which the API server calls webhooks, and, where the lab installs the CNI,
// the nodes.
func routePods(in *topology.Instance, c *topology.Cluster, podCIDRs map[string][]netip.Prefix) error {
	n, err := openAll(in)
	if err != nil {
		return err
	}
	defer n.close()
	for _, node := range c.Nodes {
		for _, cidr := range podCIDRs[node.Name] {
			via := node.Addr4.Addr()
			if cidr.Addr().Is6() {
				via = node.Addr6.Addr()
			}
			n.parts[c.Name].Route(cidr, via)
			for _, other := range c.Nodes {
				if c.CNI && other.Name != node.Name {
					n.parts[other.Name].Route(cidr, via)
				}
			}
		}
	}
	return n.err()
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
