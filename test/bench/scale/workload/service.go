// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/json"
	"fmt"
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

const slicePods = 100 // backends in a slice, as the EndpointSlice controller makes them

// ServicePort is the port of every service here.
const ServicePort = 80

// ServiceAddress is the ClusterIP of service number i, within 172.16.0.0/12, where no pods are.
func ServiceAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16 + byte(i>>16), byte(i >> 8), byte(i)})
}

// Service is a service of the cluster with one slice for each hundred of its backends.
func (c *Cluster) Service(i, backends int) []*recordv1.Record {
	name := fmt.Sprintf("svc-%d", i)
	out := []*recordv1.Record{{Cluster: c.Name, Payload: &recordv1.Record_Service{Service: &recordv1.Service{
		Namespace: Namespace, Name: name, ClusterIps: []string{ServiceAddress(i).String()},
		Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: ServicePort}},
	}}}}
	for first := 0; first < backends; first += slicePods {
		out = append(out, c.Slice(i, first/slicePods, min(slicePods, backends-first), -1))
	}
	return out
}

// Slice number s of service number i, without one of its backends (-1: with all).
func (c *Cluster) Slice(i, s, backends, without int) *recordv1.Record {
	sl := &recordv1.BackendSlice{
		Namespace: Namespace, Service: fmt.Sprintf("svc-%d", i), Name: fmt.Sprintf("svc-%d-%d", i, s),
		Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 8080}},
	}
	for b := range backends {
		if b == without {
			continue
		}
		at := (i + s*slicePods + b) % 20000
		sl.Backends = append(sl.Backends, &recordv1.Backend{
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", c.ID, at/200, 1+at%200)}, Ready: true, Serving: true,
			Node: c.NodeName(at / 200),
		})
	}
	return &recordv1.Record{Cluster: c.Name, Payload: &recordv1.Record_BackendSlice{BackendSlice: sl}}
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
