// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package world holds what is known of clusters when policies are judged without traffic: their pods, nodes, services and
// policies, and what is not known. It is pure; the Kubernetes API (gather) or files (policy/files) fill it.
//
//	gather, policy/files ──► Mesh ── Reference ──► mesh/policy: verdicts, as agents decide ──► policy/explain, expect, lint
package world

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// Mesh is what is known of all clusters.
type Mesh struct {
	Clusters map[string]*Cluster

	references map[string]*policy.Reference
}

// Cluster is what is known of one.
type Cluster struct {
	Name         string
	ID           uint8
	Context      string // of the kubeconfig; empty if it was read from files
	Labels       map[string]string
	PodCIDRs     []netip.Prefix
	ServiceCIDRs []netip.Prefix
	// Strict: an address in PodCIDRs that nobody vouches for is dropped, not judged.
	Strict     bool
	Namespaces map[string]map[string]string // name → labels
	// PolicyMode is what the cluster makes of all policies' mode, Modes what namespaces make of their own policies'.
	PolicyMode v1alpha1.PolicyMode
	Modes      map[string]record.NamespaceMode
	// Identities by number, if the cluster has given them out; else the pods' label sets get numbers here.
	Identities map[uint32]map[string]string
	Pods       []*Pod
	Nodes      []*Node
	Services   []service.Definition // as this cluster defines them
	Policies   []*Policy
	// Others are the mesh's other clusters, as this one sees them.
	Others map[string]Other
	// Missing is what could not be read, with the reason. What depends on it is not known.
	Missing []string
}

// Other is what a cluster knows of another one.
type Other struct {
	PodCIDRs []netip.Prefix
	// Unused says why its pods are not (all) known here; empty: they are.
	Unused string
}

// Live says whether the cluster was read from its Kubernetes API.
func (c *Cluster) Live() bool { return c.Context != "" }

// Pod is a pod, or the description of one.
type Pod struct {
	Cluster, Namespace, Name, Node, ServiceAccount string

	Labels      map[string]string
	Addresses   []netip.Addr
	Ports       []Port
	HostNetwork bool
	// Identity is 0 as long as the cluster has given its label set no number.
	Identity uint32
}

// Port of a pod's container.
type Port struct {
	Name   string
	Proto  record.Protocol
	Number uint16
}

// String names the pod as people write it.
func (p *Pod) String() string { return p.Cluster + "/" + p.Namespace + "/" + p.Name }

// Node of a cluster.
type Node struct {
	Cluster, Name string
	Labels        map[string]string
	Addresses     []netip.Addr
	// Reported is when its agent said last what it enforces; zero: never, or it is not known.
	Reported time.Time
	Enforces map[string]Enforced // by policy.Model's key
}

// Enforced is a policy as a node's agent has it in force.
type Enforced struct{ Revision, Content, Problem string }

// Policy is a policy of a cluster and where it was found.
type Policy struct {
	Record *record.Policy
	Model  *policy.Model
	// Line finds a field of the policy in its file; nil if it came from the API.
	Line func(field string) (int, bool)
}

// In gives the policy as it is in a mode.
func (p *Policy) In(mode record.Mode) *Policy {
	if p.Record.Mode == mode {
		return p
	}
	rec, out := *p.Record, *p
	rec.Mode = mode
	out.Record, out.Model = &rec, policy.Parse(&rec)
	return &out
}

// Node of a cluster by name; nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Pod of a cluster; nil if there is none.
func (c *Cluster) Pod(namespace, name string) *Pod {
	for _, p := range c.Pods {
		if p.Namespace == namespace && p.Name == name {
			return p
		}
	}
	return nil
}

// ModeOf is what the cluster and a policy's namespace make of its mode.
func (c *Cluster) ModeOf(namespace string) record.Mode {
	return record.ModeOf(namespace, c.Modes[namespace], c.PolicyMode)
}

// Names of the clusters, sorted.
func (m *Mesh) Names() []string { return slices.Sorted(maps.Keys(m.Clusters)) }

// PodLabels are those of the pod's identity.
func (c *Cluster) PodLabels(p *Pod) map[string]string {
	return identity.PodLabels(c.Name, p.Namespace, p.ServiceAccount, p.Labels, c.Namespaces[p.Namespace])
}

// Number gives each pod its identity: the number that its cluster gave out, or one made up where there are only files. It is
// called once, when all is known.
func (m *Mesh) Number() error {
	for _, name := range m.Names() {
		c := m.Clusters[name]
		if !c.Live() {
			if err := c.makeUp(); err != nil {
				return err
			}
			continue
		}
		numbers := map[string]uint32{}
		for id, l := range c.Identities {
			key := identity.Canonical(l)
			if was, twice := numbers[key]; identity.IsPod(id) && identity.ClusterOf(id) == c.ID && (!twice || id < was) {
				numbers[key] = id
			}
		}
		for _, p := range c.Pods {
			if !p.HostNetwork {
				p.Identity = numbers[identity.Canonical(c.PodLabels(p))]
			}
		}
	}
	return nil
}

func (c *Cluster) makeUp() error {
	var sets []map[string]string
	var pods []*Pod
	for _, p := range c.Pods {
		if !p.HostNetwork {
			pods, sets = append(pods, p), append(sets, c.PodLabels(p))
		}
	}
	given, err := identity.Allocate(c.ID, nil, sets)
	if err != nil {
		return err
	}
	c.Identities = map[uint32]map[string]string{}
	for i, a := range given {
		pods[i].Identity = a.ID
		c.Identities[a.ID] = a.Labels
	}
	return nil
}

// World is what verdicts in a cluster depend on, as its agents see it.
func (m *Mesh) World(cluster string) *policy.World {
	w := &policy.World{
		Cluster: cluster, Clusters: map[string]map[string]string{}, Identities: map[uint32]map[string]string{},
		NamedPorts: map[uint32]map[string][]uint16{}, Nodes: map[string]policy.Node{}, Services: map[policy.ServiceName]map[string]policy.Service{},
	}
	for _, n := range m.Clusters[cluster].Nodes {
		w.Nodes[n.Name] = policy.Node{Labels: n.Labels, Addresses: n.Addresses}
	}
	for _, name := range m.Names() {
		c := m.Clusters[name]
		w.Clusters[name] = c.Labels
		if c.Labels == nil {
			w.Clusters[name] = map[string]string{}
		}
		maps.Copy(w.Identities, c.Identities)
		for _, p := range c.Pods {
			addPorts(w.NamedPorts, p)
		}
	}
	for _, p := range m.Clusters[cluster].Policies {
		w.Policies = append(w.Policies, p.Model)
		for _, name := range p.Model.ServiceNames() {
			w.Services[name] = m.services(name)
		}
	}
	return w
}

// services are what clusters say of a service.
func (m *Mesh) services(name policy.ServiceName) map[string]policy.Service {
	out := map[string]policy.Service{}
	for cluster, c := range m.Clusters {
		for _, d := range c.Services {
			if d.Service.Namespace == name.Namespace && d.Service.Name == name.Name {
				out[cluster] = policy.NewService(d.Service, d.Slices, m.isNode)
			}
		}
	}
	return out
}

func (m *Mesh) isNode(a netip.Addr) bool {
	_, node := m.Holder(a)
	return node != nil
}

func addPorts(named map[uint32]map[string][]uint16, p *Pod) {
	for _, port := range p.Ports {
		if port.Name == "" || p.Identity == 0 {
			continue
		}
		if named[p.Identity] == nil {
			named[p.Identity] = map[string][]uint16{}
		}
		key := port.Name + "/" + port.Proto.String()
		if at, there := slices.BinarySearch(named[p.Identity][key], port.Number); !there {
			named[p.Identity][key] = slices.Insert(named[p.Identity][key], at, port.Number)
		}
	}
}

// Reference decides connections of a cluster's pods, as its agents do.
func (m *Mesh) Reference(cluster string) *policy.Reference {
	if r := m.references[cluster]; r != nil {
		return r
	}
	if m.references == nil {
		m.references = map[string]*policy.Reference{}
	}
	r := policy.NewReference(m.World(cluster))
	m.references[cluster] = r
	return r
}

// Holder is who has an address: a pod or a node of any cluster; both nil if nobody has it.
func (m *Mesh) Holder(a netip.Addr) (*Pod, *Node) {
	for _, name := range m.Names() {
		c := m.Clusters[name]
		for _, p := range c.Pods {
			if !p.HostNetwork && slices.Contains(p.Addresses, a) {
				return p, nil
			}
		}
		for _, n := range c.Nodes {
			if slices.Contains(n.Addresses, a) {
				return nil, n
			}
		}
	}
	return nil, nil
}

// SortPolicies puts a cluster's policies in the order of their keys.
func (c *Cluster) SortPolicies() {
	slices.SortFunc(c.Policies, func(a, b *Policy) int { return cmp.Compare(a.Model.Key(), b.Model.Key()) })
}
