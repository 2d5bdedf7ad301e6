// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// ClusterRecord describes this cluster.
func ClusterRecord(m *v1alpha1.ClusterMeshSpec, version string) *recordv1.Record {
	labels := maps.Clone(m.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1alpha1.LabelCluster] = m.ClusterName
	return &recordv1.Record{Cluster: m.ClusterName, Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
		Name: m.ClusterName, Id: uint32(m.ClusterID), MeshId: m.MeshID,
		PodCidrs: slices.Clone(m.PodCIDRs), ServiceCidrs: slices.Clone(m.ServiceCIDRs),
		Labels: labels, Region: m.Region, Zone: m.Zone, Version: version,
		// The relay carries it to this cluster's agents, which read no Kubernetes object.
		Encryption: &recordv1.Encryption{
			Mode: string(m.Encryption.Mode), Scope: string(m.Encryption.Scope), Strict: m.Encryption.Strict,
		},
	}}}
}

// NodeRecord describes a node. mn is what its agent reported, nil if it never did: then the node has no key, and no other
// cluster sends to its pods.
func NodeRecord(cluster string, node *corev1.Node, mn *v1alpha1.MeshNode) *recordv1.Record {
	n := &recordv1.Node{Name: node.Name, PodCidrs: podCIDRs(node), Zone: node.Labels[corev1.LabelTopologyZone], Labels: maps.Clone(node.Labels)}
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			n.Addresses = append(n.Addresses, a.Address)
		}
	}
	if mn != nil {
		n.WireguardPublicKey = mn.Status.WireGuardPublicKey
		n.WireguardPort = uint32(mn.Status.WireGuardPort)
		n.PodsInPodCidrs = mn.Status.PodsInPodCIDRs
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Node{Node: n}}
}

func podCIDRs(node *corev1.Node) []string {
	if len(node.Spec.PodCIDRs) > 0 {
		return slices.Clone(node.Spec.PodCIDRs)
	}
	if node.Spec.PodCIDR != "" {
		return []string{node.Spec.PodCIDR}
	}
	return nil
}

// IdentityNumber reads the number that a MeshIdentity's name is.
func IdentityNumber(name string) (uint32, error) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("MeshIdentity %q: its name is not a number", name)
	}
	return uint32(n), nil
}

// IdentityRecord gives a number its meaning.
func IdentityRecord(cluster string, number uint32, labels map[string]string) *recordv1.Record {
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Identity{
		Identity: &recordv1.Identity{Id: number, Labels: maps.Clone(labels)},
	}}
}

// IsEndpoint says whether a pod has an address of its own that packets may come from or go to. Pods that are starting
// count as soon as they have an address (init containers talk too), terminating ones until they ended.
func IsEndpoint(pod *corev1.Pod) bool {
	if pod.Spec.HostNetwork || len(pod.Status.PodIPs) == 0 || pod.Spec.NodeName == "" {
		return false
	}
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// EndpointRecord describes a pod.
func EndpointRecord(cluster string, pod *corev1.Pod, identity uint32) *recordv1.Record {
	e := &recordv1.Endpoint{Namespace: pod.Namespace, Name: pod.Name, Identity: identity, Node: pod.Spec.NodeName}
	for _, ip := range pod.Status.PodIPs {
		e.Addresses = append(e.Addresses, ip.IP)
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if h := hostPort(p); h != nil {
				e.HostPorts = append(e.HostPorts, h)
			}
			if p.Name == "" {
				continue
			}
			if e.NamedPorts == nil {
				e.NamedPorts = map[string]uint32{}
			}
			e.NamedPorts[p.Name+"/"+protocol(p.Protocol)] = uint32(p.ContainerPort)
		}
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: e}}
}

// hostPort is where the node leads to a container's port; nil if it doesn't. At a loopback address only the node itself reaches
// it; which other of its addresses a hostIP means is nothing that agents ask.
func hostPort(p corev1.ContainerPort) *recordv1.HostPort {
	if at, err := netip.ParseAddr(p.HostIP); p.HostPort == 0 || err == nil && at.IsLoopback() {
		return nil
	}
	return &recordv1.HostPort{Protocol: protocol(p.Protocol), Port: uint32(p.HostPort), Target: uint32(p.ContainerPort)}
}

func protocol(p corev1.Protocol) string {
	if p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p)
}

// ServiceRecord describes a Service; nil for one without addresses in the cluster. Warnings name annotations that were
// not understood.
func ServiceRecord(cluster string, svc *corev1.Service, exportAnnotated bool) (*recordv1.Record, []string) {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	settings, warnings := service.ParseAnnotations(svc.Annotations)
	if !exportAnnotated {
		settings = service.Settings{}
	}
	s := &recordv1.Service{
		Namespace: svc.Namespace, Name: svc.Name,
		Global: settings.Global, Shared: settings.Shared, Affinity: settings.Affinity, Selector: svc.Spec.Selector,
	}
	for _, ip := range clusterIPs(svc) {
		if ip == corev1.ClusterIPNone {
			s.Headless = true
			continue
		}
		s.ClusterIps = append(s.ClusterIps, ip)
	}
	if len(s.ClusterIps) == 0 && !s.Headless {
		return nil, warnings // its address is not assigned yet
	}
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, &recordv1.ServicePort{
			Name: p.Name, Protocol: protocol(p.Protocol), Port: uint32(p.Port), NodePort: uint32(p.NodePort),
		})
	}
	s.ExternalAddresses = externalAddresses(svc)
	s.ExternalByProxy = svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal || len(svc.Spec.LoadBalancerSourceRanges) > 0
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s.AffinityTimeoutSeconds = affinityTimeout(svc)
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Service{Service: s}}, warnings
}

// externalAddresses are those that kube-proxy translates on the nodes for pods as well, each once.
func externalAddresses(svc *corev1.Service) []string {
	out := slices.Clone(svc.Spec.ExternalIPs)
	for _, in := range svc.Status.LoadBalancer.Ingress {
		// With the mode Proxy, packets go to the load balancer.
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, in.IP)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	if svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return nil
}

func affinityTimeout(svc *corev1.Service) uint32 {
	c := svc.Spec.SessionAffinityConfig
	if c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

// PolicyRecord carries a policy in its own dialect, and what others than its spec make of its mode.
func PolicyRecord(cluster string, p Policy, mode record.Mode, from *recordv1.Provenance) (*recordv1.Record, error) {
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		return nil, fmt.Errorf("write the spec of %s %s/%s: %w", p.Kind, p.Namespace, p.Name, err)
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
		Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, SpecJson: spec, Generation: p.Generation, Uid: p.UID, Provenance: from,
		AuditedByNamespace: mode.ByNamespace, AuditedByCluster: mode.ByCluster, ModeProblem: mode.Problem,
	}}}, nil
}
