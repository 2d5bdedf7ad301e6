// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

const (
	slicePods  = 100 // backends in a slice, as the EndpointSlice controller makes them
	targetPort = 8080
)

// ServicePort is the port of every service here.
const ServicePort = 80

// ServiceAddress is the ClusterIP of service number i, within 172.16.0.0/12, where no pods are.
func ServiceAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16 + byte(i>>16), byte(i >> 8), byte(i)})
}

// Service is what the operator makes of a service of the cluster with one backend.
func (c *Cluster) Service(i int) []*recordv1.Record {
	name := serviceName(i)
	addr, node := c.backend(i)
	return []*recordv1.Record{
		{Cluster: c.Name, Payload: &recordv1.Record_Service{Service: &recordv1.Service{
			Namespace: Namespace, Name: name, ClusterIps: []string{ServiceAddress(i).String()},
			Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: ServicePort}},
		}}},
		{Cluster: c.Name, Payload: &recordv1.Record_BackendSlice{BackendSlice: &recordv1.BackendSlice{
			Namespace: Namespace, Service: name, Name: name + "-0",
			Ports:    []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: targetPort}},
			Backends: []*recordv1.Backend{{Addresses: []string{addr}, Ready: true, Serving: true, Node: node}},
		}}},
	}
}

// Objects are a service as Kubernetes has it, with a slice for each hundred of its backends.
func (c *Cluster) Objects(i, backends int) (*corev1.Service, []*discoveryv1.EndpointSlice) {
	meta := metav1.ObjectMeta{Namespace: Namespace, Name: serviceName(i)}
	svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		ClusterIP: ServiceAddress(i).String(), ClusterIPs: []string{ServiceAddress(i).String()},
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: ServicePort, TargetPort: intstr.FromInt32(targetPort)}},
	}}
	var list []*discoveryv1.EndpointSlice
	name, port, yes := "http", int32(targetPort), true
	for first := 0; first < backends; first += slicePods {
		eps := &discoveryv1.EndpointSlice{
			ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		}
		eps.Name = fmt.Sprintf("%s-%d", meta.Name, first/slicePods)
		eps.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
		for b := first; b < min(first+slicePods, backends); b++ {
			addr, node := c.backend(i + b)
			eps.Endpoints = append(eps.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{addr}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			})
		}
		list = append(list, eps)
	}
	return svc, list
}

func serviceName(i int) string { return fmt.Sprintf("svc-%d", i) }

// backend number i is a pod of one of a hundred nodes.
func (c *Cluster) backend(i int) (addr, node string) {
	at := i % 20000
	return fmt.Sprintf("10.%d.%d.%d", c.ID, at/200, 1+at%200), c.NodeName(at / 200)
}

// Policy number i selects the pods of one identity in turn and lets one of a hundred teams of all clusters call one port.
func (c *Cluster) Policy(i, port int, revision string) (*recordv1.Record, error) {
	type m = map[string]any
	spec, err := json.Marshal(m{
		"podSelector": m{"matchLabels": m{"app": fmt.Sprintf("app-%d", i%c.Shape.Identities)}},
		"ingress": m{"allow": []m{{
			"peers": []m{{"clusterSelector": m{}, "podSelector": m{"matchLabels": m{"team": fmt.Sprintf("team-%d", i%100)}}}},
			"ports": []m{{"protocol": "TCP", "port": port}},
		}}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode policy %d: %w", i, err)
	}
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
		Kind: "MeshNetworkPolicy", Namespace: Namespace, Name: fmt.Sprintf("policy-%d", i), SpecJson: spec, Generation: 1,
		Provenance: &recordv1.Provenance{Source: "fairlead-system/scale", Revision: revision, Path: fmt.Sprintf("policies/%d.yaml", i)},
	}}}, nil
}
