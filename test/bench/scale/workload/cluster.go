// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package workload makes the records of a mesh of any size, and the changes that a mesh of that size sees. Records are
// encoded once, when they are made; what the reading side must end up with is kept beside them (Mesh.Want), so that a run
// can prove that nothing is missing.
package workload

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Shape is the size of one cluster.
type Shape struct{ Nodes, Identities, Endpoints int }

// Names and numbers that all clusters of the workload share.
const (
	MeshID    = "scale"
	Home      = "home" // the cluster that reads: the operator and the agent are its own
	HomeID    = 255
	Namespace = "shop"

	firstIdentity = 256 // the lowest local identity; those below are reserved
	firstHost     = 2   // of a node's /24
	lastHost      = 249 // those above are for probes
	probeHosts    = 4
)

// Cluster is a member of the mesh. Its methods are for one goroutine.
type Cluster struct {
	Name  string
	ID    uint8
	Shape Shape

	pods     []pod
	absent   []int   // pods that went and come back later
	nextHost []uint8 // by node: where the search for a free address goes on
	used     []map[uint8]bool
	serial   int
	keys     int // how often a node came back with a new key
	gone     bool
	newcomer bool // the identity that comes and goes is there
	probes   int
}

type pod struct {
	name     string
	node     int
	host     uint8
	identity uint32
}

// NewCluster makes a cluster. Numbers are 1 to 255, and the cluster's pods lie in 10.<number>.0.0/16.
func NewCluster(name string, number uint8, s Shape) *Cluster {
	c := &Cluster{Name: name, ID: number, Shape: s, nextHost: make([]uint8, s.Nodes), used: make([]map[uint8]bool, s.Nodes)}
	for n := range s.Nodes {
		c.nextHost[n], c.used[n] = firstHost, map[uint8]bool{}
	}
	for e := range s.Endpoints {
		node, turn := e%s.Nodes, e/s.Nodes // pods of one node have different identities
		c.pods = append(c.pods, c.newPod(node, c.identity((7*node+turn)%s.Identities)))
	}
	return c
}

func (c *Cluster) identity(i int) uint32 { return uint32(c.ID)<<16 | uint32(firstIdentity+i) }

func (c *Cluster) newPod(node int, id uint32) pod {
	host := c.nextHost[node]
	for c.used[node][host] {
		host = next(host)
	}
	c.used[node][host] = true
	c.nextHost[node] = next(host)
	c.serial++
	return pod{name: fmt.Sprintf("pod-%d", c.serial), node: node, host: host, identity: id}
}

func next(host uint8) uint8 {
	if host >= lastHost {
		return firstHost
	}
	return host + 1
}

// PodCIDR is the range of the cluster's pods.
func (c *Cluster) PodCIDR() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, c.ID, 0, 0}), 16)
}

func (c *Cluster) address(node int, host uint8) netip.Addr {
	return netip.AddrFrom4([4]byte{10, c.ID, byte(node), host})
}

// NodeAddress is a node's own address, from the range for carriers' networks (RFC 6598), where no pod is.
func (c *Cluster) NodeAddress(node int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 + c.ID>>4, c.ID<<4 | byte(node>>8), byte(node)})
}

// NodeName of a node by number. Names differ between clusters, as in most real meshes.
func (c *Cluster) NodeName(node int) string { return fmt.Sprintf("%s-n%d", c.Name, node) }

// Records is everything that the cluster has to say now.
func (c *Cluster) Records() []*recordv1.Record {
	out := []*recordv1.Record{c.clusterRecord()}
	for n := range c.Shape.Nodes {
		out = append(out, c.nodeRecord(n, 0))
	}
	for i := range c.Shape.Identities {
		out = append(out, c.identityRecord(i))
	}
	for _, p := range c.pods {
		out = append(out, c.endpointRecord(p))
	}
	return out
}

// PodsOf lists the addresses of a node's pods.
func (c *Cluster) PodsOf(node int) []netip.Addr {
	var out []netip.Addr
	for _, p := range c.pods {
		if p.node == node {
			out = append(out, c.address(p.node, p.host))
		}
	}
	return out
}

func (c *Cluster) clusterRecord() *recordv1.Record {
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
		Name: c.Name, Id: uint32(c.ID), MeshId: MeshID, PodCidrs: []string{c.PodCIDR().String()},
		Labels: map[string]string{identity.LabelCluster: c.Name, "region": fmt.Sprintf("r%d", c.ID%5)}, Version: "scale",
		Encryption: &recordv1.Encryption{Mode: "WireGuard", Scope: "All"},
	}}}
}

func (c *Cluster) nodeRecord(n, generation int) *recordv1.Record {
	key := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", c.Name, n, generation))
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_Node{Node: &recordv1.Node{
		Name: c.NodeName(n), Addresses: []string{c.NodeAddress(n).String()},
		PodCidrs: []string{fmt.Sprintf("10.%d.%d.0/24", c.ID, n)}, PodsInPodCidrs: true, Zone: fmt.Sprintf("z%d", n%3),
		WireguardPublicKey: base64.StdEncoding.EncodeToString(key[:]), WireguardPort: 51871,
	}}}
}

func (c *Cluster) identityRecord(i int) *recordv1.Record {
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_Identity{Identity: &recordv1.Identity{
		Id: c.identity(i), Labels: identity.PodLabels(c.Name, Namespace, "default", labels(i), nil),
	}}}
}

// labels of the pods of identity i of any cluster.
func labels(i int) map[string]string {
	return map[string]string{"app": fmt.Sprintf("app-%d", i), "team": fmt.Sprintf("team-%d", i%100), "tier": fmt.Sprintf("tier-%d", i%4)}
}

func (c *Cluster) endpointRecord(p pod) *recordv1.Record {
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
		Namespace: Namespace, Name: p.name, Node: c.NodeName(p.node), Addresses: []string{c.address(p.node, p.host).String()},
		Identity: p.identity, NamedPorts: map[string]uint32{"http/TCP": 8080},
	}}}
}

// set encodes one record as a set.
func set(rec *recordv1.Record) record.Set {
	s, err := record.NewSet(rec)
	if err != nil {
		panic(fmt.Sprintf("workload: %v", err)) // made here from numbers: it can't be wrong on one run and right on another
	}
	return s
}

func keyOf(rec *recordv1.Record) string {
	key, err := record.Key(rec)
	if err != nil {
		panic(fmt.Sprintf("workload: %v", err))
	}
	return key
}
